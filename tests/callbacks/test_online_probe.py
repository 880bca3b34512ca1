"""OnlineProbe against autograd and torch's optimizers in float64; resume, ranks, and no trace left in the run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.online_probe import SLOWEST, OnlineProbe, readout
from ssl_lightning.core.errors import UserError
from tests.callbacks.toy import Batch, ToyData, ToyMethod, fit
from tests.parts.test_ema_teacher import StopAfter

CLASSES, DIM, BATCH = 4, 6, 20


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(count):
        features = 3 * torch.randn(BATCH, DIM, generator=generator) + 2
        labels = torch.randint(-1, CLASSES, (BATCH,), generator=generator)
        found.append((features, labels))
    return found


def naive(weight_decay: float) -> tuple[Tensor, Tensor]:
    """Softmax regression with autograd and torch's AdamW, one row at a time, in float64."""
    weight = torch.zeros(CLASSES, DIM, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=0.05, weight_decay=weight_decay)
    mean, variance = torch.zeros(DIM, dtype=torch.float64), torch.ones(DIM, dtype=torch.float64)
    for t, (features, labels) in enumerate(batches(60)):
        features = features.double()
        losses = []
        for row, label in zip(features, labels.tolist(), strict=True):
            if label >= 0:
                x = (row - mean) / (variance + 1e-6).sqrt()
                losses.append(F.cross_entropy(weight @ x + bias, torch.tensor(label)))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        share = max(1 / (t + 1), SLOWEST)
        mean = mean + share * (features.mean(0) - mean)
        variance = variance + share * (features.var(0, unbiased=False) - variance)
    return weight.detach(), bias.detach()


def trained(weight_decay: float = 0.0, rows: slice = slice(None)) -> OnlineProbe:
    probe = OnlineProbe(0.05, weight_decay)
    probe.prepare(CLASSES, DIM, torch.device("cpu"))
    for features, labels in batches(60):
        probe.step(features[rows], labels[rows])
    return probe


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equals_softmax_regression_by_autograd(weight_decay: float) -> None:
    weight, bias = naive(weight_decay)
    found = trained(weight_decay)._state["weight"].double()
    torch.testing.assert_close(found[:, :-1], weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[:, -1], bias, rtol=1e-3, atol=1e-4)


def test_learns_separable_classes_and_leaves_no_trace(tmp_path: Path) -> None:
    watched, alone = ToyMethod(), ToyMethod()
    probe = OnlineProbe(0.05, every_n_steps=1)
    state = torch.get_rng_state()
    trainer = fit(watched, tmp_path, [probe], max_epochs=8)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    fit(alone, tmp_path, [], max_epochs=8)
    assert torch.equal(after, torch.get_rng_state())
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert trainer.callback_metrics["val/probe_top1"] > 0.95
    loss, top1 = probe.step_metrics(trainer).values()
    assert loss < 0.5
    assert top1 > 0.9


class SeesParts(ToyMethod):
    """Its training features say nothing of the classes, its readout does, and has state that a forward pass moves."""

    features_are_readout = False

    def __init__(self) -> None:
        super().__init__()
        self.backbone.extend([nn.BatchNorm1d(6), nn.Dropout(0.5)])

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        output = super().training_step(batch, batch_idx)
        return {**output, "features": torch.ones_like(output["features"])}


def test_learns_from_the_readout_where_features_are_of_something_else(tmp_path: Path) -> None:
    watched, alone = SeesParts(), SeesParts()
    torch.manual_seed(3)
    trainer = fit(watched, tmp_path, [OnlineProbe(0.05, every_n_steps=1)], max_epochs=8)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    fit(alone, tmp_path, [], max_epochs=8)
    assert torch.equal(after, torch.get_rng_state())
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert trainer.callback_metrics["val/probe_top1"] > 0.95


def test_the_readout_leaves_the_method_as_it_was(tmp_path: Path) -> None:
    method = SeesParts()
    trainer = fit(method, tmp_path, [], max_epochs=1)
    method.train()
    method.backbone[1].eval()  # kept still by its owner
    x = torch.randn(4, 3, 2, 2)
    found = readout(trainer, method, x)
    assert [module.training for module in method.modules()] == [True, True, True, False, True]
    assert not found.requires_grad
    assert torch.equal(found, method.eval().embed(x))


def test_resumed_probe_is_bitwise_that_of_a_whole_run(tmp_path: Path) -> None:
    whole, first, second = (OnlineProbe(every_n_steps=3) for _ in range(3))
    fit(ToyMethod(), tmp_path, [whole], max_epochs=4)
    fit(ToyMethod(), tmp_path, [first, StopAfter(2), Checkpoint(tmp_path)], max_epochs=4)
    fit(ToyMethod(), tmp_path, [second], ckpt_path=tmp_path / "checkpoints/last.ckpt", max_epochs=4)
    one, two = whole.state_dict(), second.state_dict()
    assert one.pop("steps") == two.pop("steps") == 7  # of 20: at 1, 3, 6, ... 18
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    assert not torch.equal(first.state_dict()["weight"], one["weight"])


def test_learns_from_the_first_view_once_in_n_optimizer_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(OnlineProbe, "step", lambda probe, features, labels: seen.append((len(features), len(labels))))
    trainer = fit(ToyMethod(), tmp_path, [OnlineProbe(every_n_steps=2)], max_epochs=2, accumulate_grad_batches=2)
    assert trainer.global_step == 6
    assert len(seen) == 4  # steps 1, 2, 4, 6
    assert all(rows == labels for rows, labels in seen)


def test_switches_itself_off_without_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    probe = OnlineProbe()
    with caplog.at_level("INFO", logger="ssl_lightning"):
        trainer = fit(ToyMethod(), tmp_path, [probe], ToyData(labelled=False), max_epochs=2)
    assert [r.message for r in caplog.records if r.name == "ssl_lightning"] == [
        "the online probe is off: the training data has no labels"
    ]
    assert not any("probe" in name for name in trainer.callback_metrics)
    assert probe.state_dict() == {"steps": 0}
    assert probe.step_metrics(trainer) == {}


def test_unlabelled_rows_do_not_count() -> None:
    probe = OnlineProbe(0.05)
    probe.prepare(CLASSES, DIM, torch.device("cpu"))
    probe.step(torch.randn(4, DIM), torch.full((4,), -1))
    assert torch.equal(probe._state["weight"], torch.zeros(CLASSES, DIM + 1))


def test_checkpoint_of_other_sizes_is_refused() -> None:
    probe = OnlineProbe()
    probe.load_state_dict(trained().state_dict())
    with pytest.raises(UserError, match="has 6 features and 4 classes, this run 8 and 4"):
        probe.prepare(CLASSES, 8, torch.device("cpu"))


def test_a_resumed_probe_is_asked_before_its_next_step(tmp_path: Path) -> None:
    """Its next step lies behind the next validation, which is to have its accuracy all the same."""
    whole, cut = OnlineProbe(every_n_steps=50), OnlineProbe(every_n_steps=50)
    fit(ToyMethod(), tmp_path, [cut, StopAfter(2), Checkpoint(tmp_path)], max_epochs=4)
    last = tmp_path / "checkpoints/last.ckpt"
    trainer = fit(ToyMethod(), tmp_path, [whole], ckpt_path=last, max_epochs=4)
    assert "val/probe_top1" in trainer.callback_metrics
