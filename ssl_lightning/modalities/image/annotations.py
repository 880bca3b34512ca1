"""What is known of the places in an image: its boxes, or the class of each pixel; and images with either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import counted, named, say
from ssl_lightning.modalities.image.images import BROKEN, ImageSet
from ssl_lightning.modalities.image.pixels import opened

IGNORED = 255  # the class of pixels that count nowhere
NO_BOX = -1.0  # the class in a row that only fills up
COLUMNS = 6  # x0, y0, x1, y1 in pixels (x1, y1 exclusive), class, 1 where a box counts in no metric


class Annotations(Protocol):
    """Of N images, by their row."""

    def __len__(self) -> int: ...

    def at(self, row: int) -> Tensor:
        """Boxes (M, 6) float32, or the classes of an image's pixels (H, W) uint8."""

    def subset(self, rows: Tensor) -> Self: ...


class Boxes:
    """Boxes of images: a tensor (M, 6) each, see `COLUMNS`. `most`: how many one image has at most."""

    def __init__(self, rows: Sequence[Tensor], most: int | None = None) -> None:
        self.rows = list(rows)
        self.most = max([1, *map(len, self.rows)]) if most is None else most

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, row: int) -> Tensor:
        return self.rows[row]

    def subset(self, rows: Tensor) -> Boxes:
        return Boxes([self.rows[i] for i in rows.tolist()], self.most)


class HeldMasks:
    """Masks in memory, uint8 (N, H, W)."""

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def at(self, row: int) -> Tensor:
        return self.masks[row]

    def subset(self, rows: Tensor) -> HeldMasks:
        return HeldMasks(self.masks[rows])


class MaskFiles:
    """A file for each image, of class numbers or with a palette, read when it is asked for."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, row: int) -> Tensor:
        return read_mask(self.paths[row])

    def subset(self, rows: Tensor) -> MaskFiles:
        return MaskFiles([self.paths[i] for i in rows.tolist()])


class DrawnMasks:
    """Masks that `draw` makes of what is kept of each image, such as its polygons."""

    def __init__(self, kept: Sequence[Any], draw: Callable[[Any], Tensor]) -> None:
        self.kept, self.draw = list(kept), draw

    def __len__(self) -> int:
        return len(self.kept)

    def at(self, row: int) -> Tensor:
        return self.draw(self.kept[row])

    def subset(self, rows: Tensor) -> DrawnMasks:
        return DrawnMasks([self.kept[i] for i in rows.tolist()], self.draw)


def read_mask(path: str) -> Tensor:
    """The class numbers of a mask file, uint8 (H, W).

    Raises:
        one of `BROKEN` where it cannot be read; UserError for colours, and for numbers that are no classes.
    """
    with opened(path) as image:
        mode, values = image.mode, np.array(image)
    if mode not in ("P", "L", "1", "I", "I;16", "F"):
        raise UserError(
            f"the mask {path} is a picture of colours ({mode}); give one channel of class numbers, or a palette"
        )
    values = values.astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= IGNORED:
        raise UserError(
            f"the mask {path} has values from {values.min()} to {values.max()}; give classes from 0 to 254, 255 for "
            "pixels that count nowhere"
        )
    return torch.from_numpy(values.astype(np.uint8))


class DenseSet(ImageSet):
    """Images with annotations: an item is (uint8 (H, W, C), its annotation).

    Args:
        images, annotations: row by row.
        classes: the names of classes; of masks class 0 is the first.
    """

    def __init__(self, images: ImageSet, annotations: Annotations, classes: Sequence[str]) -> None:
        super().__init__(torch.zeros(len(images), dtype=torch.int64), len(images), classes, images.paths)
        if len(annotations) != len(images):
            raise UserError(
                f"there are {len(images)} images and {len(annotations)} annotations; give one for each image"
            )
        self.images, self.annotations, self.channels = images, annotations, images.channels
        self.broken = images.broken
        self.unreadable = images.unreadable  # type: ignore[misc]

    def prepare(self) -> None:
        self.images.prepare()

    def image(self, index: int) -> Tensor:
        return self.images.image(index)

    def item(self, index: int) -> Any:
        image, found = self.images.image(index), self.annotations.at(index)
        if found.dtype == torch.uint8 and found.shape != image.shape[:2]:
            where = self.paths[index] if self.paths else f"image {index}"
            sizes = (" x ".join(map(str, reversed(shape))) for shape in (found.shape, image.shape[:2]))
            raise UserError(
                "the mask of {} is {} px and the image {}; give masks of the image's size".format(where, *sizes)
            )
        if found.dtype == torch.uint8 and len(wrong := found[(found >= len(self.classes)) & (found != IGNORED)]):
            where = self.paths[index] if self.paths else f"image {index}"
            raise UserError(
                f"the mask of {where} holds {int(wrong.max())}; the classes are 0 to {len(self.classes) - 1}"
            )
        return image, found

    def sides(self, rows: Tensor) -> Tensor:
        return self.images.sides(rows)

    def subset(self, indices: Tensor) -> DenseSet:
        return DenseSet(self.images.subset(indices), self.annotations.subset(indices), self.classes)


def checked_boxes(boxes: Tensor, width: float, height: float) -> tuple[Tensor, int]:
    """Boxes (M, 6) cut off at the image's sides, without those that have no area left; and how many these were."""
    sides = torch.tensor([width, height, width, height])
    boxes = boxes.clone()
    boxes[:, :4] = boxes[:, :4].clamp(min=0).minimum(sides)
    good = (boxes[:, 2:4] - boxes[:, :2]).amin(1) > 0
    return boxes[good], int((~good).sum())


def tell_left_out(source: str, lost: Sequence[str]) -> None:
    """One line for boxes that are none. `lost`: the file of each."""
    if lost:
        files = named(dict.fromkeys(lost))
        say(f"{source}: {counted(len(lost), 'box')} without an area inside the image left out ({files}).")


def classes_of_masks(annotations: Annotations, most: int = 2000) -> int:
    """How many classes masks have: one more than the highest number in them, of `most` evenly spread ones."""
    step = -(-len(annotations) // most)
    highest = -1
    for row in range(0, len(annotations), step):
        try:
            found = annotations.at(row)
        except BROKEN:
            continue
        found = found[found != IGNORED]
        highest = max(highest, int(found.max()) if found.numel() else -1)
    return highest + 1
