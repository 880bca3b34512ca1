"""Batches of somebody else's DataLoader, made into `Batch`: what lets a method train in one's own Trainer.

Taken are views and labels, `([v1, v2], y)`, with or without the images' numbers, in the orders in common use:
`[v1, v2]`, `(v1, v2)`, `(x, y)`, `([v1, v2], y, indices)`, `(indices, [v1, v2], y)`, and mappings of these parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core.batch import GLOBAL, LOCAL, Batch
from ssl_lightning.core.distributed import rank, world_size
from ssl_lightning.core.errors import UserError

LABELS = ("label", "labels", "target", "targets", "y")
INDICES = ("index", "indices", "idx", "sample_idx")
WANTED = "give ([view, view], labels), each view a float tensor (B, C, H, W)"


def batch_of(batch: Any, number: int) -> Batch:
    """The batch that a loader gave as the `number`-th of its epoch; one that is a `Batch` already is returned.

    Where the images have no numbers, they are numbered through by their place in the epoch. Labels are -1 where there
    are none. Raises UserError for what holds no views.
    """
    if isinstance(batch, Batch):
        return batch
    views: list[Tensor] = []
    numbers: list[tuple[str, Tensor, bool]] = []  # (name, (B,), whether it stands behind the views)
    for name, tensor in _leaves(batch, ""):
        if tensor.ndim == 4:
            views.append(tensor)
        elif tensor.ndim == 1 and not tensor.is_floating_point():
            numbers.append((name, tensor, bool(views)))
    if not views:
        raise UserError(f"a batch of type {type(batch).__name__} holds no views; {WANTED}")
    if not all(view.is_floating_point() for view in views):
        raise UserError(f"views are {views[0].dtype}, not yet scaled and normalised; {WANTED}")
    size = len(views[0])
    if any(len(part) != size for part in (*views, *(tensor for _, tensor, _ in numbers))):
        raise UserError(f"the parts of a batch are of {', '.join(str(len(v)) for v in views)} images; {WANTED}")
    behind = [tensor for name, tensor, after in numbers if after and name not in (*LABELS, *INDICES)]
    before = [tensor for name, tensor, after in numbers if not after and name not in (*LABELS, *INDICES)]
    labels = [*(tensor for name, tensor, _ in numbers if name in LABELS), *behind[:1]]
    indices = [*(tensor for name, tensor, _ in numbers if name in INDICES), *behind[1:2], *before[:1]]
    device = views[0].device
    through = (number * world_size() + rank()) * size + torch.arange(size, device=device)
    none = torch.full((size,), -1, device=device)
    roles = roles_by_size([view.shape[-1] for view in views])
    order = sorted(range(len(views)), key=lambda place: roles[place] == LOCAL)  # global ones first
    views, roles = [views[place] for place in order], tuple(roles[place] for place in order)
    return Batch(views, (labels or [none])[0].long(), (indices or [through])[0].long(), roles)


def roles_by_size(sizes: Sequence[int]) -> tuple[str, ...]:
    """Roles where nobody said them: a view smaller than the first one is local, any other is global."""
    return tuple(LOCAL if size < sizes[0] else GLOBAL for size in sizes)


def numbered(batch: Any) -> bool:
    """Does this batch say which images of the set it holds?"""
    one, other = batch_of(batch, 0), batch_of(batch, 1)
    return torch.equal(one.indices, other.indices)


def _leaves(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch in order, with the name of the mapping's key nearest to them."""
    if isinstance(value, Tensor):
        yield name, value
    elif depth < 5:
        parts: Iterable[tuple[str, Any]] = value.items() if isinstance(value, Mapping) else ()
        parts = [(name, part) for part in value] if isinstance(value, list | tuple) else parts
        for key, part in parts:
            yield from _leaves(part, str(key), depth + 1)
