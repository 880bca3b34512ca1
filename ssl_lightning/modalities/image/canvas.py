"""Images of any size with their boxes or masks on a square canvas: whole in evaluation, scaled and flipped in training.

Scale jitter: Ghiasi et al. 2021, https://arxiv.org/abs/2012.07177. Every number is a pure function of (seed, epoch,
index).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.batch import RawBatch
from ssl_lightning.data.loader import SampleFetch
from ssl_lightning.data.sampler import Request
from ssl_lightning.modalities.image.annotations import COLUMNS, IGNORED, NO_BOX, Boxes, DenseSet
from ssl_lightning.modalities.image.draw import View, Views
from ssl_lightning.modalities.image.resize import resize

STREAM = 0  # of the counter; a view's crops have it elsewhere, and there are none here
SMALLEST = 1.0  # pixels of a side: what is left of a box is kept from here on


@dataclass(frozen=True)
class CanvasView(View):
    """A training view of an image with boxes or masks: a canvas of `size`, no colours.

    `zoom` bounds the scale: at 1 the longer side of the image is the canvas; above it a part is seen, below it the rest
    is filled up. `flip_p` is `View`'s.
    """

    zoom: tuple[float, float] = (0.8, 1.25)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "zoom", tuple(self.zoom))
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1]:
            raise UserError(f"stage.zoom={list(self.zoom)} is not a range; give [low, high] with 0 < low <= high")


def canvas_views(size: int, zoom: Sequence[float], flip_p: float) -> Views:
    """One such view."""
    low, high = zoom
    return Views(CanvasView(size, flip_p=flip_p, jitter_p=0.0, grayscale_p=0.0, zoom=(low, high)))


@dataclass(frozen=True)
class Place:
    """Where an image comes to lie: its size on the canvas, its upper left corner there, and whether all is flipped."""

    height: int
    width: int
    top: int
    left: int
    flip: bool


@dataclass(frozen=True)
class Draw:
    """What is drawn for an image before its size is known: the zoom, and places in the room that is left, in [0, 1)."""

    zoom: float = 1.0
    down: float = 0.0
    right: float = 0.0
    flip: bool = False

    def place(self, height: int, width: int, size: int) -> Place:
        """For an image of `height` x `width` on a canvas of `size`; whole and in the upper left corner by default."""
        scale = self.zoom * size / max(height, width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        return Place(h, w, _start(self.down, h, size), _start(self.right, w, size), self.flip)


def _start(share: float, length: int, size: int) -> int:
    """Where a line of `length` begins on one of `size`: before it where it is longer."""
    room = abs(size - length) + 1
    return math.floor(share * room) * (1 if length <= size else -1)


class OnCanvas:
    """A transform of `SampleFetch`: (image, annotation) -> the two on a canvas.

    Args:
        size: its side.
        mean: of the data in [0, 1], which fills the rest: 0 once normalised.
        view: what is drawn in training; None: nothing.
        seed: of these draws.
    """

    def __init__(self, size: int, mean: Sequence[float], view: CanvasView | None = None, seed: int = 0) -> None:
        self.size, self.view, self.seed = size, view, seed
        self.fill = torch.tensor([round(255 * value) for value in mean]).clamp(0, 255).to(torch.uint8)

    def draw(self, indices: Tensor, epoch: int) -> list[Draw]:
        if self.view is None:
            return [Draw()] * len(indices)
        low, high = self.view.zoom
        rows = uniform(self.seed, epoch, indices, STREAM, 4).double().tolist()
        return [Draw(low + (high - low) * u[0], u[1], u[2], u[3] < self.view.flip_p) for u in rows]

    @torch.no_grad()
    def apply(self, item: tuple[Tensor, Tensor], drawn: Draw) -> tuple[Tensor, Tensor]:
        image, annotation = item
        place = drawn.place(image.shape[0], image.shape[1], self.size)
        moved = move_mask if annotation.dtype == torch.uint8 else move_boxes
        return self._picture(image, place), moved(annotation, (image.shape[0], image.shape[1]), place, self.size)

    def _picture(self, image: Tensor, place: Place) -> Tensor:
        resized = resize(image, place.height, place.width)
        out = self.fill.expand(self.size, self.size, -1).clone()
        _paste(resized, out, place)
        return out.flip(1) if place.flip else out


def _paste(source: Tensor, canvas: Tensor, place: Place) -> None:
    size = canvas.shape[0]
    down, right = min(size, place.top + len(source)), min(size, place.left + source.shape[1])
    top, left = max(0, place.top), max(0, place.left)
    canvas[top:down, left:right] = source[top - place.top : down - place.top, left - place.left : right - place.left]


def move_boxes(boxes: Tensor, sides: tuple[int, int], place: Place, size: int) -> Tensor:
    """Boxes (M, 6) of an image of `sides` (height, width) on the canvas, cut off at its edge."""
    height, width = sides
    boxes = boxes.clone()
    boxes[:, 0:4:2] = boxes[:, 0:4:2] * (place.width / width) + place.left
    boxes[:, 1:4:2] = boxes[:, 1:4:2] * (place.height / height) + place.top
    boxes[:, :4] = boxes[:, :4].clamp(0, size)
    if place.flip:
        boxes[:, 0:4:2] = size - boxes[:, [2, 0]]
    return boxes[(boxes[:, 2:4] - boxes[:, :2]).amin(1) >= SMALLEST] if len(boxes) else boxes


def move_mask(mask: Tensor, sides: tuple[int, int], place: Place, size: int) -> Tensor:
    """The class of each pixel of the canvas, (size, size) uint8: the nearest pixel's; 255 beside the image."""
    rows, columns = (
        ((torch.arange(count) + 0.5) * (side / count)).long().clamp(max=side - 1)
        for count, side in ((place.height, sides[0]), (place.width, sides[1]))
    )
    out = torch.full((size, size), IGNORED, dtype=torch.uint8)
    _paste(mask[rows][:, columns], out, place)
    return out.flip(1) if place.flip else out


class CanvasFetch(SampleFetch):
    """Fetches images with annotations as one batch: uint8 (B, S, S, C), with boxes (B, M, 6) or masks (B, S, S).

    M is the most that an image of the set has; rows that only fill up have class -1.
    """

    def __init__(self, items: DenseSet, transform: OnCanvas, training: bool) -> None:
        most = items.annotations.most if isinstance(items.annotations, Boxes) else 0
        super().__init__(items, transform, _Together(most))
        self.training = training

    def __getitem__(self, request: Request) -> RawBatch:
        raw = super().__getitem__(request)
        if not isinstance(raw.items, tuple):  # nothing was asked for, or nothing can be read
            return raw
        images, targets = raw.items
        return raw._replace(items=[images] if self.training else images, labels=targets)


@dataclass(frozen=True)
class _Together:
    """The items of a batch as tensors; of images with `most` boxes each."""

    most: int

    def __call__(self, samples: list[Any]) -> tuple[Tensor, Tensor]:
        images = torch.stack([image for image, _ in samples])
        if not self.most:
            return images, torch.stack([mask for _, mask in samples])
        targets = torch.zeros(len(samples), self.most, COLUMNS)
        targets[:, :, 4] = NO_BOX
        for row, (_, boxes) in zip(targets, samples, strict=True):
            row[: len(boxes)] = boxes
        return images, targets
