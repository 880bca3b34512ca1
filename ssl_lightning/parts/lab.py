"""CIE L*a*b* and back, and the grid of ab colours that colourisation predicts.

IEC 61966-2-1 (sRGB) and CIE 15 (L*a*b*, white point D65). L lies in 0 to 100, a and b of sRGB colours in -86 to 98
and -108 to 94.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """`function` without autocast: colours in bfloat16 are off by a hundredth, which shows."""

    @wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(x.device.type for x in args if isinstance(x, Tensor))
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return plain


_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)
_BEND = (6 / 29) ** 3


@full_precision
def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] (B, 3, H, W) -> L, a, b of the same shape."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix, white = rgb.new_tensor(_XYZ), rgb.new_tensor(_WHITE).view(3, 1, 1)
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear) / white
    x, y, z = torch.where(xyz > _BEND, xyz.clamp_min(_BEND) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@full_precision
def lab_to_rgb(lab: Tensor) -> Tensor:
    """L, a, b (B, 3, H, W) -> sRGB, colours that it does not have cut to [0, 1]."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * lab.new_tensor(_WHITE).view(3, 1, 1)
    inverse = torch.linalg.inv(torch.tensor(_XYZ, dtype=torch.float64)).to(lab)
    linear = torch.einsum("ij,bjhw->bihw", inverse, xyz)
    curved = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp(0, 1)


@cache
def ab_centers(size: float = 10.0) -> Tensor:
    """The centres (Q, 2) of the cells of an ab grid, multiples of `size`, that hold a colour of sRGB, by a, then b.

    262 of size 10. The authors of colourisation keep 313, some of which no sRGB colour falls into.
    """
    steps = torch.linspace(0, 1, 128, dtype=torch.float64, device="cpu")
    rgb = torch.cartesian_prod(steps, steps, steps).T[None, :, :, None]  # (1, 3, 128 ** 3, 1)
    a, b = (rgb_to_lab(rgb)[0, 1:, :, 0] / size).round().to(torch.int64)  # (128^3,) each
    low, width = b.min(), b.max() - b.min() + 1
    cells = torch.unique(a * width + (b - low))  # one number a cell: rows of two take `unique` 30 times as long
    return torch.stack([cells.div(width, rounding_mode="floor"), cells.remainder(width) + low], 1).float() * size
