"""Stochastic depth: in training a residual path is left out for some items of a batch.

Huang et al. 2016, https://arxiv.org/abs/1603.09382. Which items is drawn by the counter from (seed, epoch, index): the
same after a resume, and in several processes as in one.
"""

import re

import torch
from torch import Tensor, nn

from ssl_lightning.core.counter import METHOD_STREAM, uniform
from ssl_lightning.core.errors import UserError

NAMES = re.compile(r"drop_path\d*")  # as timm calls what stands at the end of a residual path


class DropPath(nn.Module):
    """A residual path (B, ...) -> the same, 0 for a share of the items, the others larger by as much.

    Args:
        rate: the share, in [0, 1).
        place: number of this path in its network; each draws for itself.
    """

    def __init__(self, rate: float, place: int) -> None:
        super().__init__()
        self.rate, self.place = rate, place
        self.drawn_by: tuple[int, int, Tensor] | None = None  # (seed, epoch, indices (B,)) of the batch to come

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        assert self.drawn_by is not None, "which items this batch holds is told before it (`tell`)"
        seed, epoch, indices = self.drawn_by
        if len(indices) != len(x):
            raise UserError("stage.drop_path drops paths of items, and this network folds its batch; leave it out")
        stays = uniform(seed, epoch, indices, METHOD_STREAM + 1 + self.place, 1)[:, 0] >= self.rate
        return x * (stays.to(x.dtype) / (1 - self.rate)).view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def give_drop_path(network: nn.Module, rate: float) -> None:
    """Let the residual blocks of a network drop their paths, by a rate that rises in equal steps from 0 to `rate`.

    The blocks are those that have a `drop_path`, or several (`drop_path1`), as timm's networks and our ViT do.

    Raises:
        UserError: it has none.
    """
    owners = [(module, names) for module in network.modules() if (names := _names(module))]
    if not owners:
        fix = "leave it out, or take a network that has, such as backbone=vit_small or one of timm's"
        raise UserError(f"stage.drop_path: {type(network).__name__} has no residual paths that can be dropped; {fix}")
    place = 0
    for depth, (module, names) in enumerate(owners, start=1):
        its = rate * (depth - 1) / (len(owners) - 1) if len(owners) > 1 else rate
        for name in names:
            setattr(module, name, DropPath(its, place) if its else nn.Identity())
            place += 1


def tell(network: nn.Module, seed: int, epoch: int, indices: Tensor) -> None:
    """Tell all paths of a network which items the next batch holds, (B,) int64."""
    for module in network.modules():
        if isinstance(module, DropPath):
            module.drawn_by = seed, epoch, indices.detach().to(torch.int64)


def _names(module: nn.Module) -> list[str]:
    """The attributes of a block that stand at the end of its residual paths, or could."""
    if isinstance(module, DropPath):
        return []
    found = [name for name in dict.fromkeys((*module._modules, *vars(module))) if NAMES.fullmatch(name)]
    return [name for name in found if getattr(module, name) is None or isinstance(getattr(module, name), nn.Module)]
