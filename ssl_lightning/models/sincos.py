"""Fixed position embeddings of a grid of 1, 2 or 3 axes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError

AXES = {1: "one axis", 2: "two axes", 3: "three axes"}


def sincos_positions(grid: int | Sequence[int], dim: int) -> Tensor:
    """Fixed position embeddings (N, dim) of a grid, the last axis fastest (MAE's, after Vaswani et al. 2017).

    Each axis has an equal share of the width, half of it sines, then as many cosines; the last axis comes first.

    Args:
        grid: places along each axis; one number is a square.

    Raises:
        UserError: a width that is no multiple of twice the axes.
    """
    sides = (grid, grid) if isinstance(grid, int) else tuple(grid)
    if dim % (2 * len(sides)):
        raise UserError(
            f"sines and cosines of {AXES[len(sides)]} need a width that is a multiple of {2 * len(sides)}, not {dim}"
        )
    count = dim // (2 * len(sides))
    rates = torch.exp(-math.log(10000.0) * torch.arange(count, dtype=torch.float64) / count)
    parts = []
    for number, side in reversed(list(enumerate(sides))):
        angles = torch.arange(side, dtype=torch.float64)[:, None] * rates  # (side, count)
        axis = torch.cat([angles.sin(), angles.cos()], 1)  # (side, dim / axes)
        before, after = math.prod(sides[:number]), math.prod(sides[number + 1 :])
        parts.append(axis.repeat_interleave(after, 0).repeat(before, 1))
    return torch.cat(parts, 1).float()
