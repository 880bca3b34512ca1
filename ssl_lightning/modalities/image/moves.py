"""The operations of a view that move its pixels: flips, turns, and elastic fields. They follow the crop."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image import augment
from ssl_lightning.modalities.image.operation import STREAM, Operation


@dataclass(frozen=True)
class VerticalFlip(Operation):
    """Upside down: where the picture has no up (from above, through a microscope)."""

    geometric: ClassVar[bool] = True

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        return x.flip(2)


@dataclass(frozen=True)
class RightAngle(Operation):
    """A turn by 90, 180 or 270 degrees, each as often: at p = 3/4 all four positions are."""

    p: float = 0.75

    geometric: ClassVar[bool] = True
    numbers: ClassVar[int] = 1

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        turns = (u * 3).floor().view(-1, 1, 1, 1)  # 0, 1 or 2: one turn to the left more
        quarter, half, back = (x.rot90(k, (2, 3)) for k in (1, 2, 3))
        return torch.where(turns == 0, quarter, torch.where(turns == 1, half, back))


@dataclass(frozen=True)
class Rotate(Operation):
    """A turn by an angle from -`degrees` to `degrees`, around the middle, bilinear.

    Attributes:
        degrees: the largest angle, 0 to 180.
        edges: what fills the corners: "reflection" mirrors the image there, "zeros" leaves them black (torchvision's).
    """

    degrees: float = 180.0
    edges: Literal["reflection", "zeros"] = "reflection"

    geometric: ClassVar[bool] = True
    numbers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("degrees", 0, 180)
        _edges(self)

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        angle = (2 * u - 1).view(-1, 1, 1) * math.radians(self.degrees)
        down, across = _places(x)
        sin, cos = angle.sin(), angle.cos()
        return _moved(x, across * sin + down * cos, across * cos - down * sin, self.edges)

    def scaled(self, strength: float) -> Self:
        return replace(self, degrees=min(180.0, self.degrees * strength))


@dataclass(frozen=True)
class Elastic(Operation):
    """Pixels moved by a smooth random field (Simard et al. 2003, https://doi.org/10.1109/ICDAR.2003.1227801).

    Each pixel's move, even in [-1, 1] in either direction, is blurred over the image and multiplied. The defaults are
    the paper's, for 28 px; twice the pixels take twice `sigma` and four times `alpha`.

    Attributes:
        alpha: factor of the blurred field, in pixels.
        sigma: width of the Gaussian that blurs it, in pixels.
        edges: what comes in from outside: "reflection" mirrors the image, "zeros" is black.
    """

    alpha: float = 34.0
    sigma: float = 4.0
    edges: Literal["reflection", "zeros"] = "reflection"

    geometric: ClassVar[bool] = True
    numbers: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("alpha", 0, 1e6)
        self._number("sigma", 0.1, 1e4)
        _edges(self)

    def field(self, u: Tensor, height: int, width: int) -> Tensor:
        """The moves (B, 2, h, w) in pixels, down and across: its own numbers, counted from the two of `u` (B, 2)."""
        keys = (u * 2**24).long()
        numbers = uniform(0, 0, keys[:, 0] * 2**24 + keys[:, 1], STREAM, 2 * height * width)
        moves = (2 * numbers - 1).view(-1, 2, height, width)
        kernel_size = min(2 * math.ceil(4 * self.sigma) + 1, 2 * min(height, width) - 1)
        sigma = torch.full((len(u),), self.sigma, device=u.device)
        return augment.gaussian_blur(moves, sigma, kernel_size) * self.alpha

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        moves = self.field(u, *x.shape[2:])
        down, across = _places(x)
        return _moved(x, down + moves[:, 0], across + moves[:, 1], self.edges)

    def scaled(self, strength: float) -> Self:
        return replace(self, alpha=self.alpha * strength)


def _edges(op: Rotate | Elastic) -> None:
    if op.edges not in ("reflection", "zeros"):
        raise UserError(f"{type(op).__name__}'s edges={op.edges} is unknown; use reflection or zeros")


def _places(x: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels' places down (1, h, 1) and across (1, 1, w), counted from the middle of the image."""
    height, width = x.shape[2:]
    down = torch.arange(height, device=x.device) - (height - 1) / 2
    across = torch.arange(width, device=x.device) - (width - 1) / 2
    return down.view(1, -1, 1), across.view(1, 1, -1)


def _moved(x: Tensor, down: Tensor, across: Tensor, edges: str) -> Tensor:
    """`x` read at these places (B, h, w), in pixels from the middle, bilinear."""
    height, width = x.shape[2:]
    grid = torch.stack([across * (2 / width), down * (2 / height)], 3)
    return grid_sample(x, grid, "bilinear", edges, align_corners=False).clamp_(0, 1)
