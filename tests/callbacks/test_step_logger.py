"""StepLogger: which rows are logged, and what they say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger

from ssl_lightning.callbacks.collapse import Collapse
from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.callbacks.step_logger import StepLogger, to_floats
from ssl_lightning.parts.ema_teacher import EMATeacher
from tests.callbacks.toy import ToyMethod, fit


class Memory(Logger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    name = "memory"
    version = ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step or 0, dict(metrics)))


class Losses(Callback):
    """Each optimizer step's loss, learning rate, and what the method watched."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[float, float]] = {}
        self.norms: dict[int, float] = {}

    def on_before_backward(self, trainer, pl_module, loss):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.seen[trainer.global_step] = (loss.item() * trainer.accumulate_grad_batches, rate)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        squares = [p.grad.double().square().sum() for p in pl_module.parameters() if p.grad is not None]
        self.norms[trainer.global_step] = sum(squares).sqrt().item()


class Warming(ToyMethod):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 10)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rows_say_what_happened_at_their_step(tmp_path: Path, accumulate: int) -> None:
    memory, losses = Memory(), Losses()
    method = Warming(teacher=EMATeacher(0.9, 1.0))
    callbacks = [losses, StepLogger(2)]
    trainer = fit(method, tmp_path, callbacks, logger=memory, max_epochs=2, accumulate_grad_batches=accumulate)
    total = trainer.global_step
    rows = [(step, row) for step, row in memory.rows if "train/loss" in row]
    assert [step for step, _ in rows] == [0, *range(1, total, 2)]
    for step, row in rows:
        loss, rate = losses.seen[step]
        assert row["train/loss"] == pytest.approx(loss, rel=1e-5)
        assert row["train/lr"] == pytest.approx(rate)
        assert row["train/grad_norm"] == pytest.approx(losses.norms[step], rel=1e-5)
        assert row["train/teacher_momentum"] == pytest.approx(method.ema.current(step, total))  # type: ignore[union-attr]
        assert row["train/spread"] > 0
        assert row["train/images_per_second"] > 0
        assert row["train/memory_mb"] > 10
        assert row["epoch"] == step // (total // 2)


def test_default_follows_the_trainer_and_validation_metrics_share_the_step_count(tmp_path: Path) -> None:
    memory = Memory()
    callbacks = [OnlineProbe(), OnlineKNN(), Collapse(every_n_steps=5), StepLogger()]
    fit(ToyMethod(), tmp_path, callbacks, logger=memory, log_every_n_steps=5, max_epochs=2)
    assert [step for step, row in memory.rows if "train/loss" in row] == [0, 4, 9]
    validation = {step: row for step, row in memory.rows if "val/knn_top1" in row}
    assert sorted(validation) == [4, 9]
    assert {"val/probe_top1", "val/feature_std", "val/feature_rank"} < set(validation[9])
    names = {name for _, row in memory.rows for name in row}
    assert {"train/probe_loss", "train/probe_top1", "train/embedding_std", "train/alignment"} < names
    assert all(name == "epoch" or name.startswith(("train/", "val/")) for name in names)


def test_to_floats_reads_tensors_and_numbers() -> None:
    values = {"a": torch.tensor(1.5), "b": 2, "c": torch.tensor([3.0], dtype=torch.float64), "d": torch.tensor(4)}
    assert to_floats(values) == {"a": 1.5, "b": 2.0, "c": 3.0, "d": 4.0}
    assert to_floats({}) == {}
