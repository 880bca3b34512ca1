"""Labelled subsets: stratified, seeded, nested; and the held-out split."""

from itertools import pairwise

import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.labels import labelled_subset, split

SHUFFLE = torch.randperm(313, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0] * 200 + [1] * 100 + [2] * 3 + [-1] * 10)[SHUFFLE]


def counts(rows: torch.Tensor) -> list[int]:
    return [int((LABELS[rows] == label).sum()) for label in (-1, 0, 1, 2)]


def test_a_fraction_is_taken_of_each_class_and_at_least_one() -> None:
    assert counts(labelled_subset(LABELS, fraction=0.01)) == [0, 2, 1, 1]
    assert counts(labelled_subset(LABELS, fraction=0.1)) == [0, 20, 10, 1]
    assert counts(labelled_subset(LABELS, fraction=1.0)) == [0, 200, 100, 3]
    assert counts(labelled_subset(LABELS)) == [0, 200, 100, 3]


def test_so_many_per_class() -> None:
    assert counts(labelled_subset(LABELS, per_class=20)) == [0, 20, 20, 3]


def test_smaller_subsets_lie_inside_larger_ones() -> None:
    subsets = [set(labelled_subset(LABELS, fraction=f, seed=4).tolist()) for f in (0.01, 0.05, 0.1, 0.5, 1.0)]
    assert all(small < large for small, large in pairwise(subsets))
    few, more = (set(labelled_subset(LABELS, per_class=n, seed=4).tolist()) for n in (2, 20))
    assert few < more


def test_the_seed_decides_and_rows_come_sorted() -> None:
    first, again, other = (labelled_subset(LABELS, fraction=0.1, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, first.sort().values)


def test_an_unlabelled_set_has_no_labelled_rows() -> None:
    assert labelled_subset(torch.full((5,), -1), fraction=0.5).tolist() == []


@pytest.mark.parametrize(("fraction", "per_class"), [(0.0, None), (1.5, None), (None, 0), (0.1, 5)])
def test_what_makes_no_sense_is_refused(fraction: float | None, per_class: int | None) -> None:
    with pytest.raises(UserError):
        labelled_subset(LABELS, fraction, per_class)


def test_the_split_is_stratified_and_complete() -> None:
    train, test = split(LABELS, 0.1, seed=0)
    assert sorted(train.tolist() + test.tolist()) == list(range(313))
    assert counts(test) == [1, 20, 10, 1]
    assert torch.equal(test, split(LABELS, 0.1, seed=0)[1])
    assert not torch.equal(test, split(LABELS, 0.1, seed=1)[1])


def test_a_class_of_one_stays_in_train() -> None:
    train, test = split(torch.tensor([0, 0, 1]), 0.5)
    assert 2 in train.tolist()
    assert len(test) == 1
