"""What stage=detect and stage=segment leave behind: the network in a file for plain torchvision, and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ssl_lightning.callbacks.captions import captioned
from ssl_lightning.core import files
from ssl_lightning.core.distributed import is_main
from ssl_lightning.core.one_line import text
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import say
from ssl_lightning.evaluation.features import Features
from ssl_lightning.models.detector import MOST_FOUND, Detector
from ssl_lightning.runs.saving import save_safetensors
from ssl_lightning.tasks.dense import DenseTask, DenseTuner
from ssl_lightning.tasks.detect import Detect, matched

FILES = {"detect": "detector", "segment": "segmenter"}  # names of the files, by the task's
SHOWN, ACROSS, SIDE, GAP = 8, 4, 224, 6  # pictures, in a row, their side and what lies between, in pixels
RIGHT, WRONG, MISSED = (40, 200, 80), (230, 50, 50), (250, 200, 40)


# ---- the network --------------------------------------------------------------------------------------------------


def write_torchvision(
    module: DenseTuner, task: DenseTask, data: DataModule, card: Mapping[str, Any], folder: Path
) -> None:
    """Write the network with torchvision's names of parameters, and the card that says how to build it there.

    The backbone is under `backbone.body`, as in torchvision's BackboneWithFPN. Rank 0 alone does.
    """
    if not is_main():
        return
    name = FILES.get(type(task).__name__.lower(), "network")
    head: Any = module.head
    state = {f"backbone.body.{key}": value for key, value in module.backbone.state_dict().items()}
    state |= head.network.state_dict()
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    about = described(module.head, task, data.card()) | {
        "backbone": card.get("backbone"),
        "file": f"{name}.safetensors",
    }
    metadata = {"card": json.dumps(about)}
    with files.atomic(folder / f"{name}.safetensors", durable=True) as temporary:
        save_safetensors(state, temporary, metadata)
    files.write_atomic(folder / f"{name}.json", json.dumps(about, indent=2) + "\n")


def described(head: nn.Module, task: DenseTask, fed: Mapping[str, Any]) -> dict[str, Any]:
    """What torchvision's constructors are to be given, in plain values."""
    network: Any = head.network
    found: dict[str, Any] = {
        "torchvision": f"{type(network).__module__}.{type(network).__name__}",
        "classes": list(task.names),
        "image_size": fed.get("image_size"),
        "mean": fed.get("mean"),
        "std": fed.get("std"),
        "strides": list(head.strides),  # type: ignore[arg-type]
        "width": network.backbone.width,
        "pyramid": "fpn" if network.backbone.fpn is not None else "simple",
    }
    if isinstance(head, Detector):
        found |= {"num_classes": 1 + len(task.names), "anchor_sizes": [list(level) for level in head.anchors]}
        found["detections_per_img"] = MOST_FOUND
        found["note"] = "label 0 is nothing; class i of this list is label i + 1"
    else:
        found |= {"num_classes": len(task.names)}
    return found


# ---- pictures -----------------------------------------------------------------------------------------------------


def write_pictures(task: DenseTask, data: DataModule, outputs: Features, folder: Path) -> None:
    """Write `<stage>.png`: some test images with what was said of them, the worst and the best by turns.

    Rank 0 alone does; what fails is one line.
    """
    if not is_main():
        return
    name = type(task).__name__.lower()
    try:
        rows = chosen(task, outputs)
        views = torch.cat([batch.views[0] for batch in data.eval_loader("test", outputs.indices[rows], shared=False)])
        shown = [data.show(view) for view in views]
        cells = []
        for picture, row in zip(shown, rows.tolist(), strict=True):
            if picture is not None:
                cells += drawn(task, picture, outputs.x[row], outputs.labels[row])
        with files.atomic(folder / f"{name}.png") as temporary:
            captioned_grid(task, cells).save(temporary, format="PNG")
    except Exception as error:
        say(f"{name}.png was not drawn: {text(error)}")


def chosen(task: DenseTask, outputs: Features) -> Tensor:
    """(M,) rows, in the data's order: half of them those that went best, half those that went worst."""
    scores = torch.tensor([_right(task, x, y) for x, y in zip(outputs.x, outputs.labels, strict=True)])
    order = scores.argsort(descending=True, stable=True)
    half = SHOWN // 2
    return torch.cat([order[:half], order[half:][-half:]]).unique(sorted=True)


def _right(task: DenseTask, said: Tensor, true: Tensor) -> float:
    """How well an item went, in [0, 1]: a measure for the choice of pictures, and for nothing else."""
    if isinstance(task, Detect):
        right, found = matched(said, true)
        return float(right.sum() + found.sum()) / max(1, len(right) + len(found))
    counts = true != 255
    return float((said[counts] == true[counts]).float().mean()) if bool(counts.any()) else 0.0


def drawn(task: DenseTask, picture: Tensor, said: Tensor, true: Tensor) -> list[Image.Image]:
    """An image with its boxes; or the image, its true and its found classes side by side."""
    image = Image.fromarray(picture.numpy())
    if isinstance(task, Detect):
        return [with_boxes(image, said, true, task.names)]
    large = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return [large, *(painted(large, classes, len(task.names)) for classes in (true, said))]


def with_boxes(image: Image.Image, said: Tensor, true: Tensor, names: Any) -> Image.Image:
    """Boxes found in green, wrong ones in red, missed ones in yellow; those surer than one half."""
    scale = SIDE / image.width
    image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(image)
    right, found = matched(said, true)
    said = said[(said[:, 5] >= 0) & (said[:, 4] >= 0.5)]
    true = true[true[:, 4] >= 0]
    for row, hit in zip(true, found.tolist(), strict=True):
        if not hit:
            pen.rectangle((row[:4] * scale).tolist(), outline=MISSED)
    for row, hit in zip(said, right.tolist(), strict=True):
        color = RIGHT if hit else WRONG
        corner = (row[:4] * scale).tolist()
        pen.rectangle(corner, outline=color, width=2)
        pen.text((corner[0] + 3, corner[1] + 1), str(names[int(row[5])])[:12], fill=color)
    return image


def painted(image: Image.Image, classes: Tensor, count: int) -> Image.Image:
    """The classes (H, W) in colours over an image; black where a pixel counts nowhere."""
    labels = classes.long()
    colors = torch.zeros(256, 3, dtype=torch.uint8)
    for label in range(1, count):
        colors[label] = torch.tensor(hue(label))
    over = Image.fromarray(colors[labels.clamp(0, 255)].numpy()).resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(image, over, 0.6)


def hue(label: int) -> tuple[int, int, int]:
    """A colour far from those of the neighbouring labels."""
    from colorsys import hsv_to_rgb

    r, g, b = hsv_to_rgb((0.618034 * label) % 1, 0.85, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


def captioned_grid(task: DenseTask, cells: list[Image.Image]) -> Image.Image:
    """The pictures in rows, with a title, and, where several cells show one image, the name of each column."""
    boxes = isinstance(task, Detect)
    title = "Boxes found (green), wrong (red) and missed (yellow)" if boxes else "Classes of the pixels, a color each"
    across = ACROSS if boxes else 3 * (ACROSS // 2)  # image, truth and answer stay side by side
    columns = [""] * across if boxes else ["image", "truth", "found"] * (ACROSS // 2)
    across = min(across, len(cells))
    pixels = torch.from_numpy(np.array(grid(cells, across)))
    rows = [""] * -(-len(cells) // max(1, across))
    return Image.fromarray(captioned(pixels, title, rows, columns[:across], GAP).numpy())


def grid(cells: list[Image.Image], across: int) -> Image.Image:
    """Pictures of one size in rows."""
    down = -(-len(cells) // across)
    out = Image.new("RGB", (across * (SIDE + GAP) - GAP, down * (SIDE + GAP) - GAP), "white")
    for i, cell in enumerate(cells):
        out.paste(cell, ((i % across) * (SIDE + GAP), (i // across) * (SIDE + GAP)))
    return out
