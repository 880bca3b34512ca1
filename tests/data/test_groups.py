"""Splits that keep groups whole."""

import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.groups import check_apart, group_split, numbered


def sets(groups: torch.Tensor, train: torch.Tensor, test: torch.Tensor) -> tuple[set[int], set[int]]:
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(groups)))
    return set(groups[train].tolist()), set(groups[test].tolist())


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5])
def test_no_group_on_both_sides_and_the_share_about_right(fraction: float) -> None:
    groups = torch.randint(0, 60, (2000,))
    labels = torch.randint(0, 5, (2000,))
    train, test = group_split(groups, labels, fraction, seed=3)
    ours, theirs = sets(groups, train, test)
    assert not ours & theirs
    assert abs(len(test) / 2000 - fraction) < 0.03
    shares = torch.bincount(labels[test], minlength=5) / torch.bincount(labels, minlength=5)
    assert float((shares - fraction).abs().max()) < 0.08


def test_seeds_choose_other_groups_and_the_same_seed_the_same() -> None:
    groups = torch.arange(6).repeat_interleave(50)
    chosen = {int(groups[group_split(groups, None, 0.15, seed)[1]][0]) for seed in range(12)}
    assert len(chosen) > 2
    assert all(len(group_split(groups, None, 0.15, seed)[1]) == 50 for seed in range(12))
    first, second = (group_split(groups, None, 0.3, 5) for _ in range(2))
    assert torch.equal(first[1], second[1])


def test_by_name() -> None:
    groups, names = numbered(["theo", "", "jackson", "theo", "lucas"])
    train, test = group_split(groups, held_out=["theo"], names=names)
    assert (train.tolist(), test.tolist()) == ([1, 2, 4], [0, 3])
    with pytest.raises(UserError, match=r"'thea', which is not a group. Did you mean 'theo'"):
        group_split(groups, held_out=["thea"], names=names)
    with pytest.raises(UserError, match="one side"):
        group_split(torch.zeros(3, dtype=torch.int64), held_out=["a"], names=["a"])


def test_a_class_that_one_group_alone_has_stays_to_be_learned() -> None:
    groups, labels = torch.arange(8).repeat_interleave(10), torch.zeros(80, dtype=torch.int64)
    labels[groups == 3] = 1
    for seed in range(10):
        assert not bool((groups[group_split(groups, labels, 0.3, seed)[1]] == 3).any())


def test_rows_without_a_group_are_their_own() -> None:
    groups = torch.cat((torch.full((50,), -1), torch.zeros(50, dtype=torch.int64)))
    test = group_split(groups, None, 0.2, 1)[1]
    assert len(test) == 20
    assert bool((test < 50).all())


def test_what_cannot_be_split() -> None:
    with pytest.raises(UserError, match="all rows belong to one group"):
        group_split(torch.zeros(5, dtype=torch.int64))
    with pytest.raises(UserError, match="between 0 and 1"):
        group_split(torch.arange(5), test_fraction=1.0)
    train, test = group_split(torch.tensor([0, 0, 0, 1, 1, 1]), test_fraction=0.01)  # one at least
    assert len(train) == len(test) == 3
    check_apart(["a", ""], ["b", ""], "x")
    with pytest.raises(UserError, match="a, b"):
        check_apart(["a", "b"], ["b", "a"], "x")


@pytest.mark.parametrize("held_out", [None, ["b"]])
def test_groups_that_are_the_classes_are_refused(held_out: list[str] | None) -> None:
    """`data.group=folder` where the folders are the classes: nothing that is evaluated on would have been learned."""
    groups = torch.arange(3).repeat_interleave(10)
    with pytest.raises(UserError, match="as if each group were a class"):
        group_split(groups, groups, 0.3, held_out=held_out, names=["a", "b", "c"])
    assert len(group_split(groups, None, 0.3)[1]) == 10
