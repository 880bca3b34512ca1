"""Splits that keep groups whole: all takes of one speaker, all slides of one patient, on one side.

A feature that knows the speaker scores well on a test set that shares its speakers, and nowhere else.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.data.broken import named
from ssl_lightning.data.sampler import permutation


def numbered(names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """(the number of each row's group (N,) int64, -1 where its name is ""; the groups' names, sorted).

    >>> numbered(["theo", "", "jackson", "theo"])
    (tensor([ 1, -1,  0,  1]), ['jackson', 'theo'])
    """
    found = sorted(set(names) - {""})
    number = {name: i for i, name in enumerate(found)} | {"": -1}
    return torch.tensor([number[name] for name in names], dtype=torch.int64), found


def group_split(
    groups: Tensor,
    labels: Tensor | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    held_out: Sequence[str] | None = None,
    names: Sequence[str] = (),
) -> tuple[Tensor, Tensor]:
    """Splits rows into (train, test), both sorted int64, with no group on both sides.

    Groups are looked at in a seeded order, and one is held out when that brings the test rows of each class nearer to
    their share; so the share is met as well as whole groups allow. At least one group is held out, at least one stays,
    and a class that all rows of one group alone have stays in train.

    Args:
        groups: (N,) int64; a row with -1 is a group of its own.
        labels: (N,) int64, -1 = none; None: without labels.
        test_fraction: share of the rows to hold out, in (0, 1).
        seed: of the order of the groups.
        held_out: the groups to hold out, by name, in place of a share.
        names: of the groups, for `held_out`.

    Raises:
        UserError: fewer than two groups, a name in `held_out` that is none, nothing left to train on, or no class on
            both sides.
    """
    labels = torch.full_like(groups, -1) if labels is None else labels
    if held_out is not None:
        test = torch.isin(groups, _by_name(held_out, names))
    else:
        if not 0 < test_fraction < 1:
            raise UserError(f"test_fraction={test_fraction} is not between 0 and 1; 0.1 holds out a tenth")
        test = _chosen(_apart(groups), labels, test_fraction, seed)
    if not bool(test.any()) or bool(test.all()):
        raise UserError("all rows are on one side of the split; hold out some groups, and leave others to train on")
    ours, theirs = (part[part >= 0].unique() for part in (labels[~test], labels[test]))
    if len(ours) and len(theirs) and not bool(torch.isin(theirs, ours).any()):
        raise UserError(
            "the held-out groups share no class with the training groups, as if each group were a class; set "
            "other labels (data.labels) or another data.group"
        )
    return (~test).nonzero().flatten(), test.nonzero().flatten()


def check_apart(train: Iterable[str], test: Iterable[str], fix: str) -> None:
    """Raise a UserError that names the groups which two sides of a given split share; "" is no group."""
    both = sorted((set(train) & set(test)) - {""})
    if both:
        raise UserError(f"groups are in both the training and the evaluation data ({named(both)}); {fix}")


def _by_name(held_out: Sequence[str], names: Sequence[str]) -> Tensor:
    for name in held_out:
        if str(name) not in names:
            hint = did_you_mean(str(name), names) or f" There are: {named(names, 8)}."
            raise UserError(f"data.held_out names {str(name)!r}, which is not a group.{hint}")
    return torch.tensor([list(names).index(str(name)) for name in held_out], dtype=torch.int64)


def _apart(groups: Tensor) -> Tensor:
    """The groups as 0..G-1, each row without one in a group of its own."""
    alone = groups < 0
    own = groups.clone()
    own[alone] = int(groups.max()) + 1 + torch.arange(int(alone.sum()))
    return own.unique(return_inverse=True)[1]


def _chosen(groups: Tensor, labels: Tensor, share: float, seed: int) -> Tensor:
    """(N,) bool: the rows of the groups that are held out."""
    count = int(groups.max()) + 1
    if count < 2:
        raise UserError(
            "all rows belong to one group, so none can be held out; set another data.group, or leave it out"
        )
    classes = labels.unique(return_inverse=True)[1]
    width = int(classes.max()) + 1
    table = torch.bincount(groups * width + classes, minlength=count * width).view(count, width).double().numpy()
    whole = table.sum(0)
    wanted, held, taken = share * whole, np.zeros(width), np.zeros(count, bool)
    order = permutation(count, "groups", seed).tolist()

    def off(held: np.ndarray) -> float:
        return float(((held - wanted) ** 2 / whole).sum())

    def leaves_all(group: int) -> bool:
        return bool((held + table[group] < whole).all())

    for group in order:
        if leaves_all(group) and off(held + table[group]) < off(held):
            held, taken[group] = held + table[group], True
    if not taken.any():  # every group is more than twice its share: the one that is least too large
        free = [group for group in order if leaves_all(group)] or order
        taken[min(free, key=lambda group: off(table[group]))] = True
    return torch.from_numpy(taken)[groups]
