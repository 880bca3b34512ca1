"""`data=shapes`: ten outlines under many nuisance factors, drawn on the spot; nothing is downloaded."""

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core import files
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import BOXES, MASKS
from ssl_lightning.data.broken import say
from ssl_lightning.data.folder_scan import cache_dir
from ssl_lightning.modalities.image.annotations import Boxes, DenseSet, HeldMasks
from ssl_lightning.modalities.image.data import DataModule, Loaded, Split
from ssl_lightning.modalities.image.images import ArrayImages, ImageSet
from ssl_lightning.modalities.image.sources.shapes_factors import factors
from ssl_lightning.modalities.image.sources.shapes_render import CLASSES, VERSION, Rendered, render, tight_boxes

__all__ = ["CLASSES", "Rendered", "Shapes", "render"]

BACKGROUND = "background"
BLOCK = 1000  # images drawn at a time, so that masks and factors of the whole set are never held


class Shapes(DataModule):
    """Drawn images in 10 classes: disc, ring, square, triangle, star, cross, crescent, heart, arrow, hourglass.

    Image i of a split depends on (image_seed, split, i) alone. Boxes, masks and the factors behind each image:
    `render(indices, image_size, image_seed, split)`.

    Args:
        size: number of training images.
        test_size: number of test images; they are drawn from a stream of their own.
        image_seed: of the images; the run's seed does not change them, so that runs of several seeds share one set.
        loading: see `DataModule`; the images are drawn at `image_size`, 16 at least.
    """

    def __init__(self, size: int = 20_000, test_size: int = 4_000, image_seed: int = 0, **loading: Any):
        super().__init__(**loading)
        if size < 1 or test_size < 1:
            raise UserError(f"shapes needs data.size and data.test_size of 1 or more, not {size} and {test_size}")
        self.size, self.test_size, self.image_seed = size, test_size, image_seed

    annotated = (BOXES, MASKS)

    def load(self) -> Loaded:
        return self._part("train", self.size), self._part("test", self.test_size)

    def factors(self, split: Split, indices: Tensor) -> dict[str, Tensor]:
        return factors(indices, self.image_seed, split)

    def _part(self, split: str, count: int) -> ImageSet:
        images = drawn_once(count, self.image_size, self.image_seed, split)
        found = ArrayImages(images, torch.arange(count) % len(CLASSES), CLASSES)
        if self.label_kind not in self.annotated:
            return found
        boxes, masks = places(count, self.image_size, self.image_seed, split)
        if self.label_kind == BOXES:
            return DenseSet(found, Boxes([rows[rows[:, 2] > rows[:, 0]] for rows in boxes]), CLASSES)
        return DenseSet(found, HeldMasks(masks), [BACKGROUND, *CLASSES])


def places(count: int, image_size: int, seed: int, split: str) -> tuple[Tensor, Tensor]:
    """Where the figures of the first `count` images are: boxes (N, 3, 6) tight around what is seen of each, and the
    class of each pixel (N, H, W) uint8, 0 for the ground and 1 + label for any figure.

    A figure of which less than a quarter is seen counts in no metric (column 5 of its box); one that is not seen at all
    has a box of no area, which is left out.
    """
    boxes, masks = [], []
    for rows in torch.arange(count).split(BLOCK):
        drawn = render(rows, image_size, seed, split)
        n, figures = drawn.instances.shape[:2]
        seen = drawn.instances.flatten(2).sum(2)  # (n, figures)
        tight = tight_boxes(drawn.instances.flatten(0, 1)).view(n, figures, 4) * (seen > 0)[:, :, None]
        label = drawn.labels[:, None].expand(n, figures).float()
        boxes.append(torch.cat([tight, label[:, :, None], (4 * seen < drawn.whole).float()[:, :, None]], 2))
        masks.append(drawn.instances.any(1).to(torch.uint8) * (1 + drawn.labels[:, None, None]).to(torch.uint8))
    return torch.cat(boxes), torch.cat(masks)


def drawn_once(count: int, image_size: int, seed: int, split: str) -> Tensor:
    """The first `count` images of a split, uint8 (N, H, W, 3): drawn once, then memory-mapped from the cache folder.

    A cache file that is damaged is made anew; where none can be written one line says so.
    """
    shape = (count, image_size, image_size, 3)
    file = cache_dir() / "shapes" / f"v{VERSION}-{split}-{count}-{image_size}px-seed{seed}.npy"
    cached = _read(file, shape)
    if cached is not None:
        return cached
    images = torch.empty(shape, dtype=torch.uint8)
    for rows in torch.arange(count).split(BLOCK):
        images[rows[0] : rows[-1] + 1] = render(rows, image_size, seed, split).images
    try:
        _write(file, images.numpy())
    except OSError as error:
        why = error.strerror or error
        say(f"The drawn images cannot be kept in {file.parent} ({why}); they are drawn again in each run.")
        return images
    written = _read(file, shape)
    return images if written is None else written


def _read(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The memory-mapped images, or None when there are none or their checksum, which ends the file, does not agree."""
    if not os.access(file, os.R_OK):
        return None
    try:
        # "c": changes stay in memory, so that torch sees an array it may write to and does not warn
        images = np.load(file, mmap_mode="c")
    except (ValueError, EOFError):  # cut short, or not an array
        return None
    if images.shape != shape or images.dtype != np.uint8:
        return None
    with file.open("rb") as end:
        end.seek(-4, os.SEEK_END)
        checksum = int.from_bytes(end.read(), "little")
    return torch.from_numpy(images) if zlib.crc32(images.data) == checksum else None


def _write(file: Path, images: np.ndarray) -> None:
    """An .npy file with a CRC-32 of the pixels after its end, whole or not at all, whoever else writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(file, durable=True) as temporary, open(temporary, "wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(out, header)
        out.write(images.data)  # numpy's own `save` does not say when a disk is full
        out.write(zlib.crc32(images.data).to_bytes(4, "little"))
