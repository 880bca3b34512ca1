"""What a view is made of (`View`, `Views`) and its random draws, a pure function of (seed, epoch, index, view).

The draws follow torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter, RandomGrayscale, GaussianBlur and
RandomSolarize (https://docs.pytorch.org/vision/stable/transforms.html), for a whole batch at once.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ssl_lightning.core.batch import GLOBAL, LOCAL
from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.plan import Views as Plan
from ssl_lightning.modalities.image import operation
from ssl_lightning.modalities.image.operation import Operation
from ssl_lightning.modalities.image.strength import keys_of, scaled, switched_off

MOST_STRENGTH = 4.0
TRIES = 10  # RandomResizedCrop's, before it takes the whole image or its centre
_PROBABILITIES = ("flip_p", "jitter_p", "grayscale_p", "blur_p", "solarize_p")


@dataclass(frozen=True)
class View:
    """How one kind of view is drawn, `count` times per image.

    `size` is the side in pixels; `scale` and `ratio` bound the crop's area (as a part of the image) and width / height.
    `brightness`, `contrast`, `saturation` and `hue` are ColorJitter's, applied together with probability `jitter_p`.
    `interpolation` is the filter of the crop's resize, antialiased either way. `also` lists further operations
    (`operations.py`): geometric ones follow the crop, the others the colours.
    """

    size: int
    count: int = 1
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_p: float = 0.5
    jitter_p: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale_p: float = 0.2
    blur_p: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: float = 0.0
    solarize_threshold: float = 0.5
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    also: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise UserError(f"a view's interpolation={self.interpolation} is unknown; use bilinear or bicubic")
        for name in ("scale", "ratio", "blur_sigma"):
            low_high = tuple(getattr(self, name))
            object.__setattr__(self, name, low_high)  # a config brings lists
            if len(low_high) != 2 or not 0 < low_high[0] <= low_high[1]:
                raise UserError(
                    f"a view's {name}={list(low_high)} is not a range; give [low, high] with 0 < low <= high"
                )
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"a view's {name}={getattr(self, name)} is not a probability; give a number from 0 to 1"
                )
        if self.scale[1] > 1:
            raise UserError(f"a view's scale={list(self.scale)} is more than the image; give parts of it, at most 1")
        if min(self.brightness, self.contrast, self.saturation, self.hue) < 0 or self.hue > 0.5:
            raise UserError(
                "a view's brightness, contrast, saturation or hue is out of range; give 0 or more, hue at most 0.5"
            )
        if self.size < 2 or self.count < 1:
            raise UserError(f"a view of size={self.size}, count={self.count} is empty; give size >= 2 and count >= 1")
        object.__setattr__(self, "also", tuple(self.also))
        if len(self.also) > operation.MOST:
            raise UserError(f"a view's `also` lists {len(self.also)} operations; give at most {operation.MOST}")


@dataclass(frozen=True)
class LocalView(View):
    """A small view of multi-crop: `size` is the global views' side, this one's is `part` of it.

    It is rounded to a `multiple` of so many pixels, and is at least one: a ViT's patches must divide it.
    """

    part: float = 3 / 7  # 96 of 224 pixels, as in SwAV (https://arxiv.org/abs/2006.09882)
    multiple: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.part < 1:
            raise UserError(
                f"a local view's part={self.part} is not smaller than the global views; give a number between 0 and 1"
            )
        if self.multiple < 1:
            raise UserError(f"a local view's multiple={self.multiple} is not a number of pixels; give 1 or more")
        small = self.multiple * max(round(self.size * self.part / self.multiple), 1)
        if small >= self.size:
            raise UserError(
                f"a local view of part={self.part} of {self.size} px in multiples of {self.multiple} px (a patch) is "
                "no smaller than the global views; choose views= without local ones, or smaller patches"
            )
        object.__setattr__(self, "size", small)
        super().__post_init__()


@dataclass
class Views(Plan):
    """The views of one image: one or two kinds of global ones and, for multi-crop, a smaller local one.

    `strength` scales colour, crop and blur of all of them together, 1 as they are; `strength.scaled` has the formula.
    """

    global_1: View
    global_2: View | None = None
    local: View | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= MOST_STRENGTH:
            raise UserError(f"views.strength={self.strength} is out of range; give 0 to {MOST_STRENGTH:g}, 1 as it is")

    def list(self) -> list[View]:
        """One entry per view of an image, global ones first."""
        return [view for _, view in self._each()]

    def roles(self) -> tuple[str, ...]:
        """The role of each, by the name it has here: "global" or "local", whatever their sizes."""
        return tuple(role for role, _ in self._each())

    def sizes(self) -> tuple[int, ...]:
        """Their sides in pixels."""
        return tuple(view.size for view in self.list())

    def without(self) -> dict[str, Plan]:
        kinds = {name: view for name in ("global_1", "global_2", "local") if (view := getattr(self, name)) is not None}
        keys = dict.fromkeys(key for view in kinds.values() for key in keys_of(view))
        return {key: replace(self, **{n: switched_off(view, key) for n, view in kinds.items()}) for key in keys}  # type: ignore[arg-type]

    def _each(self) -> Iterator[tuple[str, View]]:
        for role, view in ((GLOBAL, self.global_1), (GLOBAL, self.global_2), (LOCAL, self.local)):
            if view is not None:
                yield from [(role, scaled(view, self.strength))] * view.count


@dataclass
class Crops:
    """Windows in pixels, int64 (B,), and whether each is flipped, bool (B,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor

    def at(self, rows: slice) -> "Crops":
        """Those of some samples."""
        return Crops(self.top[rows], self.left[rows], self.height[rows], self.width[rows], self.flip[rows])


@dataclass
class Colours:
    """The draws of B samples for all that follows the crop; what each is applied with is in `View`."""

    jitter: Tensor  # (B,) bool
    order: Tensor  # (B, 4) int64, a permutation of brightness 0, contrast 1, saturation 2, hue 3
    factors: Tensor  # (B, 4)
    grayscale: Tensor  # (B,) bool
    blur: Tensor  # (B,) bool
    sigma: Tensor  # (B,)
    solarize: Tensor  # (B,) bool
    also: tuple[Tensor, ...] = ()  # of each further operation, see `operation.draw`

    def at(self, rows: slice) -> "Colours":
        """Those of some samples."""
        return Colours(
            self.jitter[rows],
            self.order[rows],
            self.factors[rows],
            self.grayscale[rows],
            self.blur[rows],
            self.sigma[rows],
            self.solarize[rows],
            tuple(drawn[rows] for drawn in self.also),
        )


@dataclass
class Tries:
    """What is drawn for the crops of B images before their sizes are known."""

    area: Tensor  # (B, TRIES), as a part of the image
    ratio: Tensor  # (B, TRIES), width / height
    top: Tensor  # (B,) in [0, 1), of the room that the crop leaves
    left: Tensor  # (B,)
    flip: Tensor  # (B,) bool


def draw_tries(view: View, place: int, seed: int, epoch: int, indices: Tensor) -> Tries:
    """The tries for one crop per index (B,), for the view at `place` in `Views.list()`."""
    u = uniform(seed, epoch, indices, 2 * place, 2 * TRIES + 3)  # (B, 23)
    # In float64, so that no window depends on how a device rounds. Apple's devices lack it, and may differ by a pixel.
    u = u if u.device.type == "mps" else u.double()
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    return Tries(
        area=view.scale[0] + (view.scale[1] - view.scale[0]) * u[:, :TRIES],
        ratio=torch.exp(low + (high - low) * u[:, TRIES : 2 * TRIES]),
        top=u[:, -3],
        left=u[:, -2],
        flip=u[:, -1] < view.flip_p,
    )


def draw_crops(view: View, place: int, height: int, width: int, seed: int, epoch: int, indices: Tensor) -> Crops:
    """Windows for images of `height` x `width`, one per index (B,), for the view at `place` in `Views.list()`."""
    tries = draw_tries(view, place, seed, epoch, indices)
    area = height * width * tries.area
    w, h = (area * tries.ratio).sqrt().round(), (area / tries.ratio).sqrt().round()  # (B, TRIES)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    whole_h, whole_w = _fallback(view, height, width)
    some = fits.any(1)
    w = torch.where(some, w.gather(1, first).squeeze(1), whole_w)
    h = torch.where(some, h.gather(1, first).squeeze(1), whole_h)
    top = torch.where(some, (tries.top * (height - h + 1)).floor(), (height - whole_h) // 2)
    left = torch.where(some, (tries.left * (width - w + 1)).floor(), (width - whole_w) // 2)
    return Crops(top.long(), left.long(), h.long(), w.long(), tries.flip)


Window = tuple[int, int, int, int, bool]  # top, left, height, width in pixels, and whether it is flipped
Windows = Callable[[int, int], Window]


def draw_windows(view: View, place: int, seed: int, epoch: int, indices: Tensor) -> list[Windows]:
    """For each index a function from the (height, width) of its image to the window that `draw_crops` gives it.

    For images of many sizes: the numbers are drawn for all at once, and the rest is the same arithmetic in Python's
    own float64, a hundred times faster on one image than on tensors of one.
    """
    tries = draw_tries(view, place, seed, epoch, indices)
    rows = zip(*(t.tolist() for t in (tries.area, tries.ratio, tries.top, tries.left, tries.flip)), strict=True)
    return [partial(_window, view, *row) for row in rows]


def _window(
    view: View, area: list[float], ratio: list[float], top: float, left: float, flip: bool, height: int, width: int
) -> Window:
    for part, shape in zip(area, ratio, strict=True):
        pixels = height * width * part
        w, h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            return math.floor(top * (height - h + 1)), math.floor(left * (width - w + 1)), h, w, flip
    h, w = _fallback(view, height, width)
    return (height - h) // 2, (width - w) // 2, h, w, flip


def _fallback(view: View, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the central crop where no try fitted: as much of the image as the nearest ratio leaves."""
    if width / height < view.ratio[0]:
        return max(1, round(width / view.ratio[0])), width
    if width / height > view.ratio[1]:
        return height, max(1, round(height * view.ratio[1]))
    return height, width


def draw_colours(view: View, place: int, seed: int, epoch: int, indices: Tensor) -> Colours:
    """Colour parameters, one per index (B,), for the view at `place` in `Views.list()`."""
    u = uniform(seed, epoch, indices, 2 * place + 1, 13)  # (B, 13)
    factors = [
        max(0.0, 1 - v) + (1 + v - max(0.0, 1 - v)) * u[:, k]
        for k, v in enumerate((view.brightness, view.contrast, view.saturation))
    ]
    factors.append((2 * u[:, 3] - 1) * view.hue)
    sigma = view.blur_sigma[0] + (view.blur_sigma[1] - view.blur_sigma[0]) * u[:, 11]
    return Colours(
        jitter=u[:, 4] < view.jitter_p,
        order=u[:, 5:9].argsort(1),
        factors=torch.stack(factors, 1),
        grayscale=u[:, 9] < view.grayscale_p,
        blur=u[:, 10] < view.blur_p,
        sigma=sigma,
        solarize=u[:, 12] < view.solarize_p,
        also=operation.draw(view.also, place, seed, epoch, indices),
    )
