"""Thumbnails: items as the data draw them, in one sheet of equal squares."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ACROSS = 32  # in a row
QUALITY = 86


def views_of(data: Any, split: str, indices: Sequence[int]) -> dict[int, Any]:
    """{index: evaluation view} of items of a split; one whose file is broken is left out."""
    rows = torch.tensor(sorted({int(i) for i in indices}), dtype=torch.int64)
    found: dict[int, Any] = {}
    if len(rows):
        for batch in data.eval_loader(split, rows, shared=False):
            for place, index in enumerate(batch.indices.tolist()):
                found[index] = batch.views[0][place]
        data.teardown("predict")  # ends the loader's processes
    return {int(index): found[int(index)] for index in rows if int(index) in found}


def drawn(data: Any, views: Mapping[int, Any], side: int) -> dict[int, np.ndarray]:
    """{index: bytes (side, side, 3)} of views, as `data.show` draws them; of those that it does not draw none."""
    found: dict[int, np.ndarray] = {}
    if not hasattr(data, "show"):
        return found
    for index, view in views.items():
        picture = data.show(view)
        if picture is None:
            return {}
        found[index] = squared(picture, side)
    return found


def squared(picture: Tensor, side: int) -> np.ndarray:
    """Bytes (H, W, 3) -> (side, side, 3); what is small is enlarged by repeating its pixels."""
    image = Image.fromarray(np.ascontiguousarray(picture.cpu().numpy()))
    small = max(image.size) < side
    how = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return np.asarray(image.resize((side, side), how))


def sheet(pictures: Sequence[np.ndarray | None], side: int) -> np.ndarray:
    """Bytes of a JPEG (n,) with these pictures (side, side, 3) in rows of `ACROSS`; None leaves a place grey."""
    down = max(1, -(-len(pictures) // ACROSS))
    canvas = np.full((down * side, ACROSS * side, 3), 128, np.uint8)
    for place, picture in enumerate(pictures):
        if picture is not None:
            top, left = place // ACROSS * side, place % ACROSS * side
            canvas[top : top + side, left : left + side] = picture
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return np.frombuffer(file.getvalue(), np.uint8)


def alike(one: Any, other: Any) -> float:
    """The correlation of two views' values: 1 where they are the same but for brightness and contrast; 0 where they
    cannot be compared."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)) or one.shape != other.shape:
        return 0.0
    a, b = one.flatten().double(), other.flatten().double()
    a, b = a - a.mean(), b - b.mean()
    product = float(a.norm() * b.norm())
    return float(a @ b) / product if product > 0 else float(torch.equal(one, other))
