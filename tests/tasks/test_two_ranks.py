"""Metrics of several ranks, one of which may have seen nothing, are those of one process."""

import pytest
import torch

from ssl_lightning.core.task import Task, computed
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.multilabel import MultiLabel
from ssl_lightning.tasks.regress import Regress
from tests.gloo import run_two

N = 9


def each(rank: int, world_size: int) -> list[dict[str, dict[str, float]]]:
    return [measured(rank, world_size, first) for first in (4, N)]


def measured(rank: int, world_size: int, first: int) -> dict[str, dict[str, float]]:
    """Rank 0 sees the items before `first`, rank 1 the others; one process all."""
    rows = torch.arange(N) if world_size == 1 else (torch.arange(first) if rank == 0 else torch.arange(first, N))
    drawn = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
    numbers, flags = drawn.flip(0) * 5 + 3, (drawn.roll(1, 0) > 0).float()
    given: list[tuple[Task, torch.Tensor]] = [
        (Classify.of(3), torch.arange(N) % 3),
        (MultiLabel().prepare("abc", flags), flags),
        (Regress().prepare("abc", numbers), numbers),
    ]
    found = {}
    for task, targets in given:
        metrics = task.metrics()
        if len(rows):
            metrics.update(*task.measurable(drawn[rows], targets[rows]))
        found[type(task).__name__] = computed(metrics, together=True)
        assert task.measure(drawn, targets) == pytest.approx(found[type(task).__name__], rel=1e-6)  # of this rank alone
    return found


@pytest.mark.slow
def test_two_ranks_measure_what_one_process_does() -> None:
    one = measured(0, 1, N)
    for rank in run_two(each):
        for found in rank:
            assert found == {name: pytest.approx(values, rel=1e-6) for name, values in one.items()}
