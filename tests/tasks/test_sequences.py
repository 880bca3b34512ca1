"""A task of sequences, transcription by CTC, fits the contract as it is: nothing in the package knows of it."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from ssl_lightning.core.batch import Batch, Padded
from ssl_lightning.core.task import Reduction, Task
from ssl_lightning.tasks.finetuner import Finetuner


class Each(nn.Module):
    """A linear layer on each place."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)

    def forward(self, x: Padded) -> Padded:
        return Padded(self.linear(x.x), x.lengths)


class Transcribe(Task):
    """Targets are `Padded` symbols (B, S), of length -1 where there is none; outputs `Padded` logits (B, L, 1 + K)."""

    main, higher, worst = "exact", True, 0.0

    def known(self, targets: Padded) -> Tensor:
        return targets.lengths >= 0

    def features(self, backbone: nn.Module, x: Padded) -> Padded:
        return Padded(backbone.places(x.x), x.lengths)  # type: ignore[operator]

    def head(self, in_dim: int) -> nn.Module:
        return Each(in_dim, 1 + len(self.names))

    def loss(self, outputs: Padded, targets: Padded, smoothing: float = 0.0, reduction: Reduction = "mean") -> Tensor:
        logs = outputs.x.log_softmax(-1).transpose(0, 1)
        each = F.ctc_loss(logs, targets.x, outputs.lengths, targets.lengths, reduction="none")
        return each.mean() if reduction == "mean" else each.sum()

    def metrics(self) -> MetricCollection:
        return MetricCollection({"exact": MeanMetric()})

    def measurable(self, outputs: Padded, targets: Padded) -> tuple[Any, Any]:
        said = [row["symbols"] for row in self.predict(outputs)]
        true = [x[:n].tolist() for x, n in zip(targets.x, targets.lengths.tolist(), strict=True)]
        return torch.tensor([float(a == b) for a, b in zip(said, true, strict=True)]), 1.0

    def predict(self, outputs: Padded) -> list[dict[str, Any]]:
        best = [x[:n].argmax(-1).unique_consecutive() for x, n in zip(outputs.x, outputs.lengths.tolist(), strict=True)]
        return [{"symbols": row[row > 0].tolist()} for row in best]


class Net(nn.Module):
    out_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8)

    def places(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.places(x).mean(1)


def batch(symbols: Sequence[Sequence[int]]) -> Batch:
    """Each symbol is shown twice, a blank after it."""
    longest = max(map(len, symbols))
    x, y = torch.zeros(len(symbols), 3 * longest, 3), torch.zeros(len(symbols), longest, dtype=torch.int64)
    for i, row in enumerate(symbols):
        for n, symbol in enumerate(row):
            x[i, 3 * n : 3 * n + 2, symbol] = 3
            y[i, n] = symbol
    lengths = torch.tensor([len(row) for row in symbols])
    return Batch([Padded(x, 3 * lengths)], Padded(y, lengths), torch.arange(len(symbols)))  # type: ignore[arg-type]


def test_a_task_of_sequences_is_trained_and_validated_by_the_same_module(monkeypatch: Any) -> None:
    torch.manual_seed(0)
    module = Finetuner(Net(), Transcribe().prepare(["a", "b"], None), optimizer=None)  # type: ignore[arg-type]
    given, steps = batch([[1, 2], [2, 2, 1], [1]]), torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(60):
        steps.zero_grad()
        module.training_step(given, 0).backward()
        steps.step()
    logged: dict[str, float] = {}
    monkeypatch.setattr(Finetuner, "log_dict", lambda self, values, **_: logged.update(values))
    module.eval().on_validation_epoch_start()
    with torch.no_grad():
        module.validation_step(given, 0)
        blank = copy.deepcopy(given)
        blank.labels.lengths.fill_(-1)  # type: ignore[attr-defined]
        module.validation_step(blank, 1)  # which only fills up a rank
    module.on_validation_epoch_end()
    assert logged["val/exact"] == 1
    assert module.picking == (1.0, -logged["val/loss"])
    assert module.task.predict(module(given.views[0])) == [{"symbols": s} for s in ([1, 2], [2, 2, 1], [1])]
