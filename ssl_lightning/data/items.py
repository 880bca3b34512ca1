"""`ItemSet`: items of any modality with their labels; what a data module holds for training, test and probes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import BrokenFiles


class ItemSet(Dataset[tuple[Any, int, int]]):
    """Items with labels; `items[i]` is `(item, label, i)`. A modality's set says `item` and `subset`.

    One whose items all lie in memory may say `batch(rows)`, for a whole batch by one index operation.

    Args:
        labels: (N,) integers, -1 where there is none; None: no labels at all.
        count: N.
        classes: the class names, in label order.
        paths: the file of each item, or None when the items do not come from files of their own.

    Attributes:
        targets: (N, L) int8 of 0 and 1 where each item has L labels of its own, -1 in the rows of items without, or
            float32 where these are numbers, NaN in those rows; None otherwise. `target_names` names the L.
        targets_borne: whether batches bear the targets in place of the labels (`labelled.targets_of`).
        in_memory: whether an item costs next to nothing to fetch, so that evaluation needs no workers.
        broken: counts the items whose file cannot be read; None where items cannot be broken.
        unreadable: what `item` raises for those.
    """

    noun: ClassVar[str] = "item"  # what one of them is called in messages
    unreadable: ClassVar[tuple[type[Exception], ...]] = ()
    in_memory: bool = False
    broken: BrokenFiles | None = None
    labels: Tensor
    classes: list[str]
    paths: list[str] | None
    targets: Tensor | None = None
    target_names: Sequence[str] = ()
    targets_borne: bool = False

    def __init__(self, labels: Tensor | None, count: int, classes: Sequence[str] = (), paths: list[str] | None = None):
        self.labels = torch.full((count,), -1) if labels is None else labels.to(torch.int64)
        if self.labels.shape != (count,):
            told = f"there are {count} {self.noun}s but {len(self.labels)} labels"
            raise UserError(f"{told}; give one label per {self.noun}")
        self.classes = list(classes)
        self.paths = paths

    def item(self, index: int) -> Any:
        """One item as it is stored. Raises one of `unreadable` where its file is broken."""
        raise NotImplementedError

    def batch(self, rows: Tensor) -> Any:
        """The items of `rows` (B,) at once. Optional: `BatchFetch` asks for it."""
        raise NotImplementedError

    def subset(self, indices: Tensor) -> ItemSet:
        """The rows `indices` (M,) as a set of their own; the class names stay."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What is found out once, before workers are copied from this process."""

    def with_targets(self, targets: Tensor | None, names: Sequence[str], borne: bool = False) -> Self:
        """This set, with several labels for each item: `targets` (N, L)."""
        if targets is not None and len(targets) != len(self):
            told = f"there are {len(self)} {self.noun}s but {len(targets)} rows of labels"
            raise UserError(f"{told}; give one row per {self.noun}")
        self.targets, self.target_names, self.targets_borne = targets, tuple(names), borne
        return self

    def labelled_at(self, rows: Tensor) -> Self:
        """The same items, -1 for each label that is not at `rows` (M,)."""
        items = copy.copy(self)
        items.labels = torch.full_like(self.labels, -1).index_copy_(0, rows, self.labels[rows])
        return items

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        return self.item(index), int(self.labels[index]), index

    def _targets_of(self, indices: Tensor) -> tuple[Tensor | None, Sequence[str], bool]:
        return None if self.targets is None else self.targets[indices], self.target_names, self.targets_borne

    @property
    def labelled(self) -> bool:
        """True when every item has a label."""
        return len(self) > 0 and bool((self.labels >= 0).all())


class HeldItems(ItemSet):
    """Items in memory in one tensor (N, ...) or structure of N items (`core.batch.Structure`).

    Args:
        items: all of them; `items[rows]` are some.
        labels: (N,) integers, -1 where there is none; None: no labels at all.
        classes: the class names, in label order; made from the labels ("0", "1", ...) when absent.
    """

    in_memory = True

    def __init__(self, items: Any, labels: Tensor | None = None, classes: Sequence[str] = ()):
        if labels is not None and not classes:
            classes = [str(i) for i in range(int(labels.max()) + 1 if len(labels) else 0)]
        super().__init__(labels, len(items), classes)
        self.items = items

    def item(self, index: int) -> Any:
        return self.items[index]

    def batch(self, rows: Tensor) -> Any:
        return self.items[rows]

    def subset(self, indices: Tensor) -> HeldItems:
        part = HeldItems(self.items[indices], self.labels[indices], self.classes)
        return part.with_targets(*self._targets_of(indices))
