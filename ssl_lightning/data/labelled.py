"""What a data module knows of labels: how they are read, which may be used, and what a batch bears of them.

Sets of any modality have `labels` (N,) int64, -1 for none, with `classes`, or texts in their place; or `targets`
(N, T), named `target_names`: int8 of 0 and 1 (several labels, -1 in the rows of items without) or float32 (numbers, NaN
in those).
"""

from __future__ import annotations

import copy
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import BOXES, CLASSES, MASKS, TEXTS, Reads
from ssl_lightning.data.labels import labelled_subset

Split = Literal["train", "test"]


def kind_of(items: Any) -> Reads | None:
    """What labels a set has; None where it has none."""
    if items.targets is not None:
        return "numbers" if items.targets.is_floating_point() else "several"
    return CLASSES if bool((items.labels >= 0).any()) else None


def bears_targets(items: Any) -> bool:
    """Whether what is learned from these items is their targets, and not a class."""
    return items.targets is not None and bool(getattr(items, "targets_borne", False))


def targets_of(items: Any, rows: Tensor | None = None) -> Tensor:
    """What a batch of these rows bears: classes (B,) int64, -1 for none, or targets (B, T) float32, NaN for none."""
    found = items.targets if bears_targets(items) else items.labels
    found = found if rows is None else found[rows]
    if not bears_targets(items):
        return found
    return found if found.is_floating_point() else found.float().masked_fill(found < 0, torch.nan)


def shares(labels: Tensor, kind: Reads) -> Tensor:
    """Labels (N,) as what subsets and splits keep the shares of: the class; of texts, which mostly differ, 0."""
    return labels.clamp(max=0) if kind == TEXTS else labels


def strata(items: Any, kind: Reads = CLASSES) -> Tensor:
    """(N,) int64, what subsets and splits keep the shares of: the class, or, of targets and texts, 0; -1 without."""
    if not bears_targets(items):
        return shares(items.labels, kind)
    return targets_of(items).isnan().any(dim=1).long().neg()


def only_at(items: Any, rows: Tensor) -> Any:
    """The same items, without each label that is not at `rows` (M,)."""
    found = items.labelled_at(rows)
    if bears_targets(items):
        found = copy.copy(found)
        found.targets = torch.full_like(items.targets.float(), torch.nan)
        found.targets[rows] = targets_of(items, rows)
    return found


class Labelled:
    """The part of a data module that is about labels."""

    label_kind: Reads = CLASSES
    label_fraction: float | None
    labels_per_class: int | None
    seed: int
    _sets: tuple[Any, Any, Any] | None
    probe_set: Any
    test_set: Any
    _load: Any

    @property
    def sets_read(self) -> bool:
        """Whether the sets are there: stage=predict goes through the files of a folder without them."""
        return self._sets is not None

    def read_labels(self, kind: Reads) -> None:
        """Read labels as a task takes them: a class, several labels, numbers, a text. What was read is read anew."""
        if kind != self.label_kind:
            self.label_kind, self._sets = kind, None

    def bear(self, sets: tuple[Any, ...]) -> None:
        """Let batches bear targets where these are what is learned from."""
        for items in sets:
            items.targets_borne = self.label_kind not in (CLASSES, BOXES, MASKS) and items.targets is not None

    @property
    def found_kind(self) -> Reads | None:
        """What labels the probe's items have; None where they have none."""
        kind = kind_of(self.probe_set)
        return self.label_kind if kind == CLASSES and self.label_kind == TEXTS else kind

    @property
    def classes(self) -> list[str]:
        """Class names in label order; [] when unlabelled."""
        return list(self.probe_set.classes)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def label_names(self) -> list[str]:
        """The names of classes, or of targets where these are what is learned from."""
        return list(self.probe_set.target_names) if bears_targets(self.probe_set) else self.classes

    @property
    def has_labels(self) -> bool:
        """True when both the probe's training items and the test items are labelled, with what is to be learned."""
        return all(len(items) > 0 and bool((strata(items) >= 0).all()) for items in (self.probe_set, self.test_set))

    def targets(self, split: Split, rows: Tensor | None = None) -> Tensor:
        """What is to be learned of the items of a split, as batches bear it: (N,) or (N, T)."""
        return targets_of(self.probe_set if split == "train" else self.test_set, rows)

    def factors(self, split: Split, indices: Tensor) -> dict[str, Tensor]:
        """What a generator knows of the items at these rows (N,): numbers (N,) or (N, K), classes int64; here none."""
        return {}

    def labelled_indices(self, split: Split = "train") -> Tensor:
        """Rows (M,) whose labels may be used: all of "test", the chosen fraction of "train" (the probe set)."""
        if split == "test":
            return labelled_subset(strata(self.test_set, self.label_kind))
        if self.label_kind != CLASSES and self.labels_per_class is not None:
            raise UserError(
                "data.labels_per_class needs classes, and this task has none; set data.label_fraction instead"
            )
        return labelled_subset(
            strata(self.probe_set, self.label_kind), self.label_fraction, self.labels_per_class, self.seed
        )

    def labelled_by(self, fraction: float | None, per_class: int | None, seed: int) -> Self:
        """A copy with the same items that gives out other labels, and shuffles by another seed."""
        other = copy.copy(self)
        other._load = self._load
        other.label_fraction, other.labels_per_class, other.seed = fraction, per_class, seed
        return other

    def _with_usable_labels(self, items: Any) -> Any:
        """The training items, -1 for each label that `labelled_indices` does not give out."""
        if items is not self.probe_set or (self.label_fraction is None and self.labels_per_class is None):
            return items
        return only_at(items, self.labelled_indices("train"))

    def no_targets(self, like: Tensor) -> Tensor:
        """What a batch of one item bears that has no label, on the device of `like`."""
        if not bears_targets(self.test_set):
            return like.new_full((1,), -1)
        width = self.test_set.targets.shape[1]
        return torch.full((1, width), torch.nan, device=like.device)
