"""Choosing labelled images: stratified, seeded, nested subsets, and the split of a set into train and test."""

from fractions import Fraction

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import permutation


def class_orders(labels: Tensor, seed: int) -> list[Tensor]:
    """For each class present, its rows in a fixed shuffled order; rows without a label (-1) are left out."""
    return [
        rows[permutation(len(rows), "labels", seed, int(label))]
        for label in labels.unique()
        if label >= 0
        for rows in [(labels == label).nonzero().flatten()]
    ]


def labelled_subset(
    labels: Tensor, fraction: float | None = None, per_class: int | None = None, seed: int = 0
) -> Tensor:
    """The rows whose labels may be used, sorted (M,): a prefix of each class's fixed order, at least one per class.

    Because it is a prefix, the 1 % subset lies inside the 10 % subset of the same seed.

    Args:
        labels: (N,) int64, -1 = none.
        fraction: share of each class, in (0, 1]; None = all.
        per_class: rows of each class; None = all. Give one of the two at most.
        seed: of the per-class order.

    Raises:
        UserError: both given, or out of range.
    """
    if fraction is not None and per_class is not None:
        raise UserError("label_fraction and labels_per_class are both set; set one of them to null")
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(f"label_fraction={fraction} is not in (0, 1]; 0.01 means one percent of each class")
    if per_class is not None and per_class < 1:
        raise UserError(f"labels_per_class={per_class} leaves no labels; use 1 or more")
    orders = class_orders(labels, seed)
    counts = [_take(len(rows), fraction, per_class) for rows in orders]
    if not orders:
        return torch.empty(0, dtype=torch.int64)
    return torch.cat([rows[:count] for rows, count in zip(orders, counts, strict=True)]).sort().values


def _take(size: int, fraction: float | None, per_class: int | None) -> int:
    if fraction is not None:  # in fractions: halves round up on every machine
        return max(1, int(Fraction(str(fraction)) * size + Fraction(1, 2)))
    return size if per_class is None else min(size, per_class)


def split(labels: Tensor, test_fraction: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Splits rows into (train, test), both sorted; stratified when labelled. A class of one stays in train.

    Unlabelled rows (-1) are split as a class of their own.
    """
    if not 0 < test_fraction < 1:
        raise UserError(f"test_fraction={test_fraction} is not between 0 and 1; 0.1 holds out a tenth")
    test = []
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        count = min(max(1, round(len(rows) * test_fraction)), len(rows) - 1)
        test.append(rows[permutation(len(rows), "split", seed, int(label))[:count]])
    held_out = torch.cat(test).sort().values if test else torch.empty(0, dtype=torch.int64)
    mask = torch.ones(len(labels), dtype=torch.bool)
    mask[held_out] = False
    return mask.nonzero().flatten(), held_out
