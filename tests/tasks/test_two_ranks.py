"""Metrics of several ranks, one of which may have seen nothing, are those of one process."""

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.task import Task, computed
from ssl_lightning.evaluation.features import extract
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.multilabel import MultiLabel
from ssl_lightning.tasks.regress import Regress
from ssl_lightning.tasks.transcribe import Transcribe
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


class Rows(nn.Module):
    """Features and one view of the numbers of rows: (B,) -> (B, L, 1 + K), drawn from each number."""

    def forward(self, rows: Tensor) -> Tensor:
        steps = torch.arange(28).view(7, 4)  # L, 1 + K
        return torch.sin(rows.view(-1, 1, 1) * 1.7 + steps * 2.3).double()


def transcribed(rank: int, world_size: int, first: int) -> dict[str, dict[str, float]]:
    """Error rates of texts of several lengths: of outputs that are gathered, and of metrics that are added up."""
    rows = torch.arange(N) if world_size == 1 else (torch.arange(first) if rank == 0 else torch.arange(first, N))
    task = Transcribe().prepare(("a b", "b", "abab ba", "", "bb a b"), torch.arange(4))
    targets = torch.arange(N) % 5
    batches = [Batch([part.float()], targets[part], part) for part in rows.split(2)]
    outputs = extract(Rows(), batches)
    metrics = task.metrics()
    if len(rows):
        metrics.update(*task.measurable(Rows()(rows), targets[rows]))
    return {"gathered": task.measure(outputs.x, outputs.labels), "added": computed(metrics, together=True)}


def written(rank: int, world_size: int) -> list[dict[str, dict[str, float]]]:
    return [transcribed(rank, world_size, first) for first in (4, N)]


@pytest.mark.slow
@pytest.mark.long
def test_error_rates_of_two_ranks_are_those_of_one_process() -> None:
    one = transcribed(0, 1, N)
    assert one["gathered"] == one["added"]
    assert 0.3 < one["added"]["cer"] != one["added"]["wer"] > 0.3
    for rank in run_two(written):
        for found in rank:
            assert found == one


@pytest.mark.slow
@pytest.mark.long
def test_two_ranks_measure_what_one_process_does() -> None:
    one = measured(0, 1, N)
    for rank in run_two(each):
        for found in rank:
            assert found == {name: pytest.approx(values, rel=1e-6) for name, values in one.items()}
