"""Collapse: constant, rank-1 and healthy embeddings are told apart, and it warns once per event."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_lightning.callbacks.collapse import Collapse, diagnose
from ssl_lightning.callbacks.online_knn import OnlineKNN
from tests.callbacks.toy import ToyMethod, fit

B, P = 64, 32


def healthy() -> Tensor:
    z = torch.randn(B, P)
    return torch.cat([z, z + 0.1 * torch.randn(B, P)])


def constant() -> Tensor:
    return torch.ones(2 * B, P) + 0.01 * torch.randn(2 * B, P)


def on_a_line() -> Tensor:
    return torch.randn(2 * B, 1) * torch.randn(P) + 0.01 * torch.randn(2 * B, P)


def look(callback: Collapse, embeddings: Tensor, step: int) -> dict[str, Any]:
    trainer: Any = SimpleNamespace(global_step=step, is_global_zero=True)
    batch = SimpleNamespace(labels=torch.zeros(B))
    callback.on_train_batch_end(trainer, None, {"embeddings": embeddings}, batch, 0)  # type: ignore[arg-type]
    return callback.step_metrics(trainer)


@pytest.mark.parametrize(("make", "expected"), [(healthy, ""), (constant, "complete"), (on_a_line, "dimensional")])
def test_tells_the_kinds_apart(make, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    callback = Collapse(every_n_steps=1, patience=2)
    metrics = look(callback, make(), 1)
    assert diagnose(metrics["embedding_std"], metrics["embedding_rank"]) == expected
    assert not caplog.records
    for step in range(2, 8):
        look(callback, make(), step)
    messages = [r.message for r in caplog.records]
    assert len(messages) == (1 if expected else 0)
    if expected:
        assert messages[0].startswith(f"{expected} collapse of the embeddings at step 2: ")
        assert "optimizer.base_lr" in messages[0]


def test_warns_again_only_after_it_recovered(caplog: pytest.LogCaptureFixture) -> None:
    callback = Collapse(every_n_steps=1, patience=2)
    makes = [constant, healthy, constant, constant, constant, healthy, constant, constant]
    for step, make in enumerate(makes, start=1):
        look(callback, make(), step)
    assert [r.args[2] for r in caplog.records] == [4, 8]  # type: ignore[index]


def test_measures_equal_their_definitions() -> None:
    z = healthy()
    metrics = look(Collapse(), z, 1)
    unit = (z / z.norm(dim=1, keepdim=True)).double()
    assert metrics["embedding_std"] == pytest.approx(unit.std(0).mean().item() * P**0.5, rel=1e-5)
    assert metrics["alignment"] == pytest.approx((unit[:B] - unit[B:]).square().sum(1).mean().item(), rel=1e-5)
    distances = torch.pdist(unit).square()
    assert metrics["uniformity"] == pytest.approx((-2 * distances).exp().mean().log().item(), rel=1e-5)
    eigenvalues = torch.linalg.svdvals(z.double() - z.double().mean(0)).square()
    shares = eigenvalues / eigenvalues.sum()
    assert metrics["embedding_rank"] == pytest.approx((-(shares * shares.log()).sum()).exp().item(), rel=1e-4)


def test_looks_only_when_due_and_leaves_nan_to_the_guard() -> None:
    callback = Collapse(every_n_steps=10)
    of_rows = {"embedding_std", "embedding_rank", "embedding_scale", "uniformity"}
    of_pairs = {"alignment", "positive_similarity", "negative_similarity", "positive_top1", "mutual_information"}
    assert set(look(callback, healthy(), 1)) == of_rows | of_pairs
    assert look(callback, healthy(), 2) == {}
    assert look(callback, healthy(), 10) != {}
    assert look(callback, healthy() * float("nan"), 20) == {}


def test_embeddings_that_shrink_to_a_point_have_collapsed_also_after_a_resume(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, resumed = Collapse(every_n_steps=1, patience=2), Collapse(every_n_steps=1, patience=2)
    assert look(first, 4 * healthy(), 1)["embedding_scale"] == 1
    assert look(first, healthy(), 2)["embedding_scale"] == pytest.approx(0.25, rel=0.1)
    resumed.load_state_dict(first.state_dict())
    for step in range(3, 6):
        assert look(resumed, 0.04 * healthy(), step)["embedding_scale"] == pytest.approx(0.01, rel=0.1)
    (message,) = [r.getMessage() for r in caplog.records]
    assert message.startswith("complete collapse of the embeddings at step 4: they shrink to one point (their scale is")
    assert "optimizer.base_lr" in message


def test_judges_features_at_validation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Flat(ToyMethod):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            out = super().validation_step(batch, batch_idx, dataloader_idx)
            return out | {"features": torch.ones_like(out["features"])}

    trainer = fit(Flat(), tmp_path, [Collapse(patience=2), OnlineKNN()], max_epochs=3)
    assert trainer.callback_metrics["val/feature_std"] == 0
    assert trainer.callback_metrics["val/feature_rank"] == 1
    messages = [r.message for r in caplog.records if r.name == "ssl_lightning"]
    assert len(messages) == 1
    assert messages[0].startswith("complete collapse of the features at step 10")
