"""The sampler as a pure function of (seed, epoch, rank, start)."""

import pytest
import torch

from ssl_lightning.core import distributed
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import EvalSampler, TrainSampler, permutation
from tests.gloo import run_two


def rows(sampler: TrainSampler | EvalSampler) -> list[list[int]]:
    return [batch.tolist() for _, batch, _ in sampler]


def order(seed: int, epoch: int) -> list[int]:
    return torch.cat([batch for _, batch, _ in TrainSampler(40, 8, seed, position=lambda: (epoch, 0))]).tolist()


def test_an_epoch_is_full_batches_of_distinct_rows() -> None:
    batches = [batch for _, batch, _ in TrainSampler(23, 5, seed=3)]
    assert [len(b) for b in batches] == [5] * 4
    assert len(torch.cat(batches).unique()) == 20


def test_epochs_and_seeds_differ_and_repeat() -> None:
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order(1, 1) == order(1, 1)
    assert sorted(order(1, 1)) == list(range(40))


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_starting_late_gives_the_remaining_batches_and_the_full_length(start: int) -> None:
    whole = TrainSampler(23, 5, seed=1, position=lambda: (2, 0))
    rest = TrainSampler(23, 5, seed=1, position=lambda: (2, start))
    assert rows(rest) == rows(whole)[start:]
    assert len(rest) == len(whole) == 4
    assert all(epoch == 2 for epoch, _, _ in rest)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_see_the_batches_of_one_process(world: int) -> None:
    one = rows(TrainSampler(50, 4 * world, seed=5))
    ranks = [rows(TrainSampler(50, 4, seed=5, rank=r, world_size=world)) for r in range(world)]
    for batch, *parts in zip(one, *ranks):
        assert [p for group in zip(*parts) for p in group] == batch  # rank r holds rows r::world


def own_rows(rank: int, world_size: int) -> list[list[int]]:
    return rows(TrainSampler(50, 4, seed=5, rank=distributed.rank(), world_size=distributed.world_size()))


def test_two_processes_together_see_the_batches_of_one() -> None:
    for batch, part0, part1 in zip(rows(TrainSampler(50, 8, seed=5)), *run_two(own_rows), strict=True):
        assert batch == [row for pair in zip(part0, part1, strict=True) for row in pair]


def test_the_shuffle_is_uniform() -> None:
    counts = torch.zeros(6, 6)
    for epoch in range(3000):
        counts[torch.arange(6), permutation(6, "epoch", 0, epoch)] += 1
    # each cell is binomial(3000, 1/6): five standard deviations are 102
    assert (counts - 500).abs().max() < 102


def test_a_batch_larger_than_the_data_is_refused_with_the_mend() -> None:
    with pytest.raises(UserError, match=r"batch of 64 on each of 2 devices does not fit 100 .* at most 50"):
        TrainSampler(100, 64, world_size=2)
    with pytest.raises(UserError, match="batch of 0"):
        TrainSampler(100, 0)


def test_evaluation_ranks_share_the_rows_without_repeats() -> None:
    wanted = torch.tensor([4, 8, 15, 16, 23])
    parts = [EvalSampler(wanted, 2, rank=r, world_size=2) for r in (0, 1)]
    assert rows(parts[0]) == [[4, 15], [23]]
    assert rows(parts[1]) == [[8, 16]]
    assert [len(p) for p in parts] == [2, 1]
    assert rows(EvalSampler(torch.empty(0, dtype=torch.int64), 2)) == []
