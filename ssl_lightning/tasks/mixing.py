"""Mixup and CutMix: items of a batch blended with others of it, or with a part of others pasted in.

Mixup: https://arxiv.org/abs/1710.09412. CutMix: https://arxiv.org/abs/1905.04899. Everything is drawn by the counter,
from (seed, epoch, batch) and the items' indices: the same after a resume, and in several processes as in one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.counter import METHOD_STREAM, uniform
from ssl_lightning.core.distributed import gather_rows, rank
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import hashed_seed


@dataclass(frozen=True)
class Mix:
    """How the items of a batch are mixed.

    Attributes:
        share: how much each item keeps of its own target, in [0, 1].
        box: of CutMix, what comes from the other item, a slice of each axis behind the channels; None: mixup.
    """

    share: float
    box: tuple[slice, ...] | None = None


def draw(seed: int, epoch: int, batch: int, sizes: tuple[int, ...], mixup: float, cutmix: float) -> Mix:
    """How this batch is mixed; where both are asked for, each batch by one of them, half of the time each.

    Args:
        sizes: lengths of an item's axes behind the channels, (H, W) of an image.
        mixup, cutmix: alpha of the Beta distribution of the share; 0 = none. One of them is above 0.
    """
    generator = np.random.default_rng(hashed_seed("mix", seed, epoch, batch))
    cut = generator.random() < 0.5 if mixup and cutmix else bool(cutmix)
    alpha = cutmix if cut else mixup
    share = float(generator.beta(alpha, alpha))
    if not cut:
        return Mix(share)
    ratio = (1 - share) ** (1 / len(sizes))  # of each side, so that the box has 1 - share of the area
    box = []
    for size in sizes:
        center, half = int(generator.integers(size)), int(size * ratio) // 2
        box.append(slice(max(center - half, 0), min(center + half, size)))
    area = math.prod(part.stop - part.start for part in box) / math.prod(sizes)
    return Mix(1 - area, tuple(box))  # of a box that the edge cuts, as in the authors' code


def partners(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """(B,) int64: with which row each item is mixed, the next one in a random order of all, after the last the first.

    Args:
        indices: (B,) int64, of the items; the order follows from these alone, not from the rows that they stand in.
    """
    keys = uniform(seed, epoch, indices, METHOD_STREAM, 1)[:, 0]
    by_index = indices.argsort(stable=True)
    order = by_index[keys[by_index].argsort(stable=True)]
    found = torch.empty_like(order)
    found[order] = order.roll(-1)
    return found


def mixed(
    x: Any, targets: Tensor, indices: Tensor, seed: int, epoch: int, batch: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor, float]:
    """Items (B, C, ...) mixed with others of the global batch, the others' targets, and the share of their own.

    Every rank calls this with equally many items.

    Raises:
        UserError: items that are no tensor, or, of CutMix, that have nothing behind their channels to be cut.
    """
    name = "mixup" if mixup else "cutmix"
    if not isinstance(x, Tensor):
        raise UserError(f"stage.{name} mixes items of one size, and these have sizes of their own; set stage.{name}=0")
    if cutmix and x.ndim < 3:
        raise UserError("stage.cutmix pastes a part of an item, and these have no parts; use stage.mixup instead")
    mix = draw(seed, epoch, batch, tuple(x.shape[2:]), mixup, cutmix)
    all_x, all_targets, all_indices = (gather_rows(t, equal=True) for t in (x, targets, indices))
    mine = slice(rank() * len(x), (rank() + 1) * len(x))
    rows = partners(seed, epoch, all_indices)[mine]
    other = all_x[rows]
    if mix.box is None:
        return mix.share * x + (1 - mix.share) * other, all_targets[rows], mix.share
    inside = torch.zeros(x.shape[2:], dtype=torch.bool, device=x.device)
    inside[mix.box] = True
    x = torch.where(inside, other, x)
    return x, all_targets[rows], mix.share
