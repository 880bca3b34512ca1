"""Further operations of a view, listed in its `also`: each a small class with the probability `p` that it is done.

    also:
      - {_target_: ssl_lightning.modalities.image.operations.RightAngle, p: 0.75}
      - {_target_: ssl_lightning.modalities.image.operations.Gamma, p: 0.5, gamma: [0.7, 1.5]}

Geometric ones follow the crop, the others the colours, each kind in the order of the list. An operation of your own is
a subclass of `Operation` in one of `trusted_packages`.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from ssl_lightning.modalities.image.moves import Elastic, RightAngle, Rotate, VerticalFlip
from ssl_lightning.modalities.image.operation import Operation

__all__ = [
    "ChannelDropout",
    "Cutout",
    "Elastic",
    "Gamma",
    "Operation",
    "RightAngle",
    "Rotate",
    "StainJitter",
    "VerticalFlip",
]


@dataclass(frozen=True)
class Cutout(Operation):
    """A square of the view's mean colour (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).

    Its centre is anywhere in the image, and it is cut off at the border.

    Attributes:
        area: bounds of the square's share of the image, drawn evenly.
    """

    area: tuple[float, float] = (0.05, 0.25)

    numbers: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._range("area", 0, 1)

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        height, width = x.shape[2:]
        half = ((self.area[0] + (self.area[1] - self.area[0]) * u[:, 0]) * height * width).sqrt().view(-1, 1, 1) / 2
        down, across = (torch.arange(n, device=x.device) + 0.5 for n in (height, width))
        tall = (down.view(1, -1, 1) - u[:, 1].view(-1, 1, 1) * height).abs() < half
        wide = (across.view(1, 1, -1) - u[:, 2].view(-1, 1, 1) * width).abs() < half
        return torch.where((tall & wide).unsqueeze(1), x.mean((2, 3), keepdim=True), x)

    def scaled(self, strength: float) -> Self:
        low, high = (min(1.0, max(bound * strength, 1e-6)) for bound in self.area)
        return replace(self, area=(low, high))


# Optical density of hematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001), rows of length one.
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


@dataclass(frozen=True)
class StainJitter(Operation):
    """Other strengths of the stains of histology (Tellez et al. 2018, https://arxiv.org/abs/1808.05896).

    The optical density -ln(rgb) is split into hematoxylin, eosin and DAB; each is multiplied by a number from
    1 - `sigma` to 1 + `sigma`, `bias` at most is added, and colours are made of them again. Images of other channels
    than red, green and blue stay as they are.

    Attributes:
        sigma: the largest change of a stain, as a share of it: 0.05 is mild, 0.2 strong.
        bias: the largest amount of a stain that is added or taken, in optical density.
    """

    p: float = 0.8
    sigma: float = 0.05
    bias: float = 0.05

    numbers: ClassVar[int] = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("sigma", 0, 1)
        self._number("bias", 0, 10)

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        if x.shape[1] != 3:
            return x
        stains = torch.tensor(STAINS, dtype=torch.float64)
        stains = stains / stains.norm(dim=1, keepdim=True)
        split = stains.inverse()
        alpha, beta = 1 + (2 * u[:, :3] - 1) * self.sigma, (2 * u[:, 3:] - 1) * self.bias
        density = x.clamp(min=1e-6).log_().neg_().unbind(1)
        out = []
        for to in range(3):
            # Weight of each colour's density in this one's: split, multiplied by alpha, and put together again.
            terms = (split * stains[:, to]).tolist()  # [colour][stain]
            value: Tensor = sum(beta[:, s] * float(stains[s, to]) for s in range(3))  # type: ignore[assignment]
            value = value.view(-1, 1, 1)
            for colour in range(3):
                weight: Tensor = sum(alpha[:, s] * terms[colour][s] for s in range(3))  # type: ignore[assignment]
                value = value + density[colour] * weight.view(-1, 1, 1)
            out.append(value)
        return torch.stack(out, 1).neg_().exp_().clamp_(0, 1)

    def scaled(self, strength: float) -> Self:
        return replace(self, sigma=min(1.0, self.sigma * strength), bias=min(10.0, self.bias * strength))


@dataclass(frozen=True)
class Gamma(Operation):
    """Values to the power of a number, drawn evenly in its logarithm: another exposure or display.

    Attributes:
        gamma: bounds of the power; above 1 is darker.
    """

    gamma: tuple[float, float] = (0.7, 1.5)

    numbers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._range("gamma")

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        low, high = math.log(self.gamma[0]), math.log(self.gamma[1])
        return x.clamp(min=0).pow(torch.exp(low + (high - low) * u).view(-1, 1, 1, 1))

    def scaled(self, strength: float) -> Self:
        return replace(self, gamma=(self.gamma[0] ** strength, self.gamma[1] ** strength))


@dataclass(frozen=True)
class ChannelDropout(Operation):
    """One channel, each as often, set to 0: no feature may rest on one band alone. A single channel stays."""

    p: float = 0.1

    numbers: ClassVar[int] = 1

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        if x.shape[1] == 1:
            return x
        dropped = (u * x.shape[1]).floor()  # (B, 1)
        kept = torch.arange(x.shape[1], device=x.device).view(1, -1) != dropped
        return torch.where(kept.view(len(x), -1, 1, 1), x, 0.0)

    def scaled(self, strength: float) -> Self:
        return replace(self, p=min(1.0, self.p * strength))
