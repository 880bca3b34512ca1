"""Callbacks in two processes: equal on all ranks, and equal to one process. One spawn serves all: it costs seconds."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_lightning.callbacks.collapse import Collapse
from ssl_lightning.callbacks.nan_guard import NanGuard
from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.knn import knn_top1
from tests.callbacks.test_online_probe import trained
from tests.gloo import run_two

pytestmark = pytest.mark.long


def guard_message(rank: int) -> str:
    guard = NanGuard(every_n_batches=3)
    module = SimpleNamespace(device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(world_size=2, global_step=0, current_epoch=0)
    guard.on_train_start(trainer, module)  # type: ignore[arg-type]
    for step in range(6):
        trainer.global_step = step
        loss = torch.tensor(float("inf") if (rank, step) == (1, 4) else 1.0)
        batch = SimpleNamespace(indices=torch.arange(2) + 2 * rank + 10 * step)
        guard.on_train_batch_start(trainer, module, batch, step)  # type: ignore[arg-type]
        try:
            guard.on_before_backward(trainer, module, loss)  # type: ignore[arg-type]
        except UserError as error:
            return str(error)
    return "no error"


def probe_state(rank: int) -> dict[str, Tensor]:
    # Unequal shares of the batch, so that averaging the ranks' means would be wrong.
    return trained(rows=slice(0, 3) if rank == 0 else slice(3, None))._state


def knn_rows() -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """(features, labels, indices) of 30 bank and 25 query images; noisy, so that accuracy is not 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    rows = {}
    for loader, n in enumerate((30, 25)):
        labels = torch.arange(n) % 3
        centers = torch.eye(3)[labels]
        rows[loader] = (centers + 0.8 * torch.randn(n, 3, generator=generator), labels, torch.arange(n) + 100)
    return rows


def knn_accuracy(rank: int, world_size: int) -> float:
    """Each rank sees its own rows, and both see row 0, as a sampler that fills up would have it."""
    knn = OnlineKNN(k=5)
    trainer: Any = SimpleNamespace(sanity_checking=False)
    for loader, (features, labels, indices) in knn_rows().items():
        mine = [0, *range(1 + rank, len(labels), world_size)]
        outputs = {"features": features[mine], "labels": labels[mine], "indices": indices[mine]}
        knn.on_validation_batch_end(trainer, None, outputs, None, 0, loader)  # type: ignore[arg-type]
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(log=lambda name, value, **kwargs: logged.update({name: value}))
    knn.on_validation_epoch_end(trainer, module)
    return logged["val/knn_top1"]


def spread(rank: int, world_size: int) -> dict[str, float]:
    """The spread of unlabelled features; where a rank has fewer, a row of index -1 fills up."""
    features, _, indices = knn_rows()[1]
    mine = list(range(rank, len(indices), world_size))
    outputs = {"features": features[mine], "indices": indices[mine]}
    if rank == 1:
        outputs = {"features": torch.cat([outputs["features"], torch.full((1, 3), 50.0)]),
                   "indices": torch.cat([outputs["indices"], torch.tensor([-1])])}  # fmt: skip
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(log_dict=lambda values, **kwargs: logged.update(values))
    trainer: Any = SimpleNamespace(sanity_checking=False, global_step=1)
    collapse = Collapse()
    collapse.on_validation_batch_end(trainer, module, outputs, None, 0, 1)
    collapse.on_validation_epoch_end(trainer, module)
    return logged


def everything(rank: int, world_size: int) -> dict[str, Any]:
    found: dict[str, Any] = {"guard": guard_message(rank), "probe": probe_state(rank)}
    return {**found, "knn": knn_accuracy(rank, world_size), "spread": spread(rank, world_size)}


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    return run_two(everything)


def test_all_ranks_stop_at_the_same_batch(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["guard"] == ranks[1]["guard"]
    assert "loss is inf at step 4 (epoch 0), samples 42, 43;" in ranks[0]["guard"]


def test_two_ranks_hold_the_probe_of_one_process(ranks: list[dict[str, Any]]) -> None:
    for name, value in trained()._state.items():
        assert torch.equal(ranks[0]["probe"][name], ranks[1]["probe"][name]), name
        torch.testing.assert_close(ranks[0]["probe"][name], value, rtol=1e-3, atol=1e-4)


def test_two_ranks_count_each_image_once_in_knn(ranks: list[dict[str, Any]]) -> None:
    (bank, bank_labels, _), (queries, query_labels, _) = knn_rows().values()
    expected = knn_top1(bank, bank_labels, queries, query_labels, k=5, temperature=0.07)
    assert 0.4 < expected < 1
    assert ranks[0]["knn"] == ranks[1]["knn"] == pytest.approx(expected)


def test_the_spread_of_features_leaves_out_what_fills_up_a_rank(ranks: list[dict[str, Any]]) -> None:
    alone = spread(0, 1)
    assert set(alone) == {"val/feature_std", "val/feature_rank"}
    for found in ranks:
        assert found["spread"] == pytest.approx(alone, rel=1e-9)
