"""The features of a whole split, computed once: what every judge works on."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import torch
from torch import Tensor, nn

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import gather_rows, world_size
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import known


class EvalBatch(Protocol):
    """What an evaluation loader yields: one view of each image."""

    @property
    def views(self) -> list[Tensor]: ...  # [(B, 3, H, W)]
    @property
    def labels(self) -> Tensor: ...  # (B,), -1 where there is none, or (B, T)
    @property
    def indices(self) -> Tensor: ...  # (B,)


@dataclass(frozen=True)
class Features:
    """The features of a split in the order of its indices, on the CPU."""

    x: Tensor  # (N, D) float32
    labels: Tensor  # (N,) int64, -1 where there is none, or (N, T) float32, NaN in the rows of items without
    indices: Tensor  # (N,) int64, increasing

    def __len__(self) -> int:
        return len(self.x)

    def labelled(self) -> "Features":
        """Only the rows that have a label."""
        keep = known(self.labels)
        if bool(keep.all()):
            return self  # features that are mapped from a file stay there
        return Features(self.x[keep], self.labels[keep], self.indices[keep])


def extract(
    embed: Callable[[Tensor], Tensor],
    loader: Iterable[EvalBatch],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Features:
    """Runs `embed`, (B, 3, H, W) -> (B, D), over a loader, in evaluation mode and without gradient.

    `embed` is a module or a module's method; each of its submodules gets its own training flag back afterwards. Under
    several ranks every rank calls this with its own part of the split, and every rank gets the whole: sorted by index,
    and an index that several ranks saw (padding) once.

    Args:
        device: where `embed` lives.
        dtype: runs under autocast to this type, for instance torch.bfloat16; float32 without autocast when None.

    Raises:
        UserError: the loaders of all ranks together hold no image.
    """
    device = torch.device(device)
    x, labels, indices = [], [], []
    with evaluating(embed), torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
        for batch in progress.steps(loader):
            x.append(embed(batch.views[0].to(device, non_blocking=True)).float().cpu())
            labels.append(batch.labels.cpu())
            indices.append(batch.indices.cpu())
    return _gathered(x, labels, indices, device)


def extract_parts(
    embed: Callable[[Tensor], Tensor], loader: Iterable[EvalBatch], device: torch.device, batches: int
) -> Iterator[Features]:
    """`extract` by increasing index, so many batches at a time; under several ranks all at once."""
    if world_size() > 1:
        yield extract(embed, loader, device)
        return
    rest, last = iter(loader), -1
    for first in rest:
        found = extract(embed, chain([first], islice(rest, max(1, batches) - 1)), device)
        new = found.indices > last  # a broken file was replaced by the next one, which the part before may have
        last = max(last, int(found.indices.max()))
        if bool(new.any()):
            yield Features(found.x[new], found.labels[new], found.indices[new])


def module_of(embed: Callable[[Tensor], Tensor]) -> nn.Module | None:
    """The module that `embed` is, or is a method of."""
    module = embed if isinstance(embed, nn.Module) else getattr(embed, "__self__", None)
    return module if isinstance(module, nn.Module) else None


@contextmanager
def evaluating(embed: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Evaluation mode for the module behind `embed`, and each submodule's own flag back at the end."""
    module = module_of(embed)
    modules = list(module.modules()) if module is not None else []
    flags = [m.training for m in modules]
    try:
        for m in modules:
            m.training = False
        yield
    finally:
        for m, flag in zip(modules, flags, strict=True):
            m.training = flag


def _gathered(x: list[Tensor], labels: list[Tensor], indices: list[Tensor], device: torch.device) -> Features:
    """All ranks' rows, each index once, in the order of the indices."""
    mine = (*x[0].shape[1:], 0) if x else (0, 0)  # of an item: (D,), or (L, K) where a task's outputs are sequences
    sides = [side for side in gather_rows(torch.tensor([mine[:2]], device=device)).amax(0).tolist() if side]
    if not sides:
        raise UserError("there is no image to extract features from; check the split and its labels")
    all_x = _gather_cpu(torch.cat(x) if x else torch.zeros(0, *sides), device)
    all_labels = _gather_cpu(_labels(labels, device), device)
    all_indices = _gather_cpu(torch.cat(indices) if x else torch.zeros(0, dtype=torch.int64), device)
    order = all_indices.argsort(stable=True)
    all_indices = all_indices[order]
    first = torch.ones_like(all_indices, dtype=torch.bool)
    first[1:] = all_indices[1:] != all_indices[:-1]
    rows = order[first]
    return Features(all_x[rows], all_labels[rows], all_indices[first])


LABELS = (torch.int64, torch.float32, torch.uint8)  # of classes, of targets, of the classes of pixels


def _labels(mine: list[Tensor], device: torch.device) -> Tensor:
    """This rank's labels; where it has none, an empty tensor of the others' kind and shape."""
    sides = [*mine[0].shape[1:], 0, 0][:2] if mine else [0, 0]
    kind = LABELS.index(mine[0].dtype) if mine else -1
    found = gather_rows(torch.tensor([[kind, *sides]], device=device)).amax(0).tolist()
    return torch.cat(mine) if mine else torch.zeros(0, *(side for side in found[1:] if side), dtype=LABELS[found[0]])


def _gather_cpu(rows: Tensor, device: torch.device, chunk: int = 16384) -> Tensor:
    """All ranks' rows on the CPU; they travel through the device (NCCL knows no other way) a chunk at a time."""
    longest = int(gather_rows(torch.tensor([len(rows)], device=device)).max())
    parts = [gather_rows(rows[i : i + chunk].to(device)).cpu() for i in range(0, longest, chunk)]
    return torch.cat(parts)
