"""`Batch`: what a method is given, whatever its items are; and the words for its views: `concat`, `chunk`, `len`.

A view is a tensor (B, ...) or a small structure of tensors (`Structure`); `Padded`, for items of different lengths, is
the first. Each view has a role, stored with it: a method that treats global and local views differently reads roles,
never shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

GLOBAL = "global"  # a view of most of the item
LOCAL = "local"  # a view of a small part of it (multi-crop)

View: TypeAlias = Any  # a Tensor (B, ...) or a Structure of B items


class Structure(Protocol):
    """B items that are no single tensor. `concat` and `chunk` are used through the functions of that name."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any: ...

    def to(self, *args: Any, **kwargs: Any) -> Any: ...

    def detach(self) -> Any: ...

    @classmethod
    def concat(cls, views: Sequence[Any]) -> Any: ...

    def chunk(self, n: int) -> tuple[Any, ...]: ...

    @property
    def stack_shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, eq=False)
class Padded:
    """B items of different lengths, filled up to the longest.

    Args:
        x: (B, L, ...); row i holds its item in `x[i, :lengths[i]]`, and what follows means nothing.
        lengths: (B,) int64, from 0 to L.

    >>> Padded(torch.zeros(2, 5, 8), torch.tensor([5, 3])).valid.sum(dim=1)
    tensor([5, 3])
    """

    x: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> Padded:
        """Some of the items, as many places long as before."""
        return Padded(self.x[rows], self.lengths[rows])

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """Lengths may differ between views that are stacked; what follows them may not."""
        return tuple(self.x.shape[2:])

    @property
    def valid(self) -> Tensor:
        """(B, L) bool, False where there is only padding."""
        return torch.arange(self.x.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def to(self, *args: Any, **kwargs: Any) -> Padded:
        """On another device as `Tensor.to`; a dtype is that of the items, lengths stay int64."""
        x = self.x.to(*args, **kwargs)
        return Padded(x, self.lengths.to(x.device, non_blocking=bool(kwargs.get("non_blocking"))))

    def detach(self) -> Padded:
        return Padded(self.x.detach(), self.lengths)

    @classmethod
    def concat(cls, views: Sequence[Padded]) -> Padded:
        """Padded with zeros to the longest of all."""
        longest = max(view.x.shape[1] for view in views)
        filled = [pad(v.x, (0, 0) * (v.x.ndim - 2) + (0, longest - v.x.shape[1])) for v in views]
        return cls(torch.cat(filled), torch.cat([view.lengths for view in views]))

    def chunk(self, n: int) -> tuple[Padded, ...]:
        return tuple(Padded(x, lengths) for x, lengths in zip(self.x.chunk(n), self.lengths.chunk(n), strict=True))


def concat(views: Sequence[View]) -> View:
    """V views of B items each -> one of V * B items, the first view's items first.

    Args:
        views: V of them, all tensors (B, ...) of one shape, or all structures of one kind, such as `Padded`.

    Returns:
        The same kind, of V * B items.

    >>> concat([torch.zeros(2, 3), torch.ones(2, 3)]).shape
    torch.Size([4, 3])
    >>> concat([Padded(torch.zeros(1, 5), torch.tensor([5])), Padded(torch.ones(1, 2), torch.tensor([2]))]).x.shape
    torch.Size([2, 5])
    """
    first = views[0]
    return torch.cat(list(views)) if isinstance(first, Tensor) else first.concat(views)


def chunk(view: View, n: int) -> tuple[View, ...]:
    """The inverse of `concat`; padded ones stay as long as they are.

    Args:
        view: n * B items, a tensor (n * B, ...) or a structure.
        n: into how many.

    Returns:
        n of them, of B items each.

    >>> first, second = chunk(torch.zeros(4, 3), 2)
    >>> first.shape
    torch.Size([2, 3])
    """
    return tuple(view.chunk(n))


def stack_shape(view: View) -> tuple[int, ...]:
    """What must be equal for two views to pass a network in one call: the shape of an item."""
    return tuple(view.shape[1:]) if isinstance(view, Tensor) else tuple(view.stack_shape)


class Batch(NamedTuple):
    """A training or evaluation batch, ready for a network.

    Args:
        views: V views of B items each, global ones first: tensors (B, ...), for images (B, C, h, w), float32,
            normalised; or structures.
        labels: (B,) int64, -1 where there is none; or, of a task of several labels or numbers, (B, T) float32, NaN in
            the rows of items without.
        indices: (B,) int64, the row of each item in its source set.
        roles: V words, one for each view, such as "global" or "local"; () where all are global.

    >>> views = [torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 16, 16)]
    >>> batch = Batch(views, torch.tensor([-1, -1]), torch.arange(2), ("global", "global", "local"))
    >>> len(batch.global_views), len(batch.local_views)
    (2, 1)
    """

    views: list[View]
    labels: Tensor
    indices: Tensor
    roles: tuple[str, ...] = ()

    def views_of(self, role: str) -> list[View]:
        """The views with this role, in order. Raises ValueError where there is not one role for each view."""
        roles = self.roles or (GLOBAL,) * len(self.views)
        return [view for view, its in zip(self.views, roles, strict=True) if its == role]

    @property
    def global_views(self) -> list[View]:
        """The views whose role is "global"."""
        return self.views_of(GLOBAL)

    @property
    def local_views(self) -> list[View]:
        """The views whose role is "local"; empty without multi-crop."""
        return self.views_of(LOCAL)
