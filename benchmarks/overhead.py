"""What Lightning, our callbacks and csv logging add to a step: a tiny net under the trainer against the same net in a
bare loop, batch 256. `python -m benchmarks.overhead`"""

import contextlib
import io
import itertools
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from torch import Tensor, nn

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.collapse import Collapse
from ssl_lightning.callbacks.interrupt import Interrupt
from ssl_lightning.callbacks.metrics_csv import MetricsCSV
from ssl_lightning.callbacks.nan_guard import NanGuard
from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.callbacks.reseed import Reseed
from ssl_lightning.callbacks.step_logger import StepLogger
from ssl_lightning.callbacks.view_mosaic import ViewMosaic
from ssl_lightning.cli.trainers import NoProfiler, pass_over
from ssl_lightning.data.batch import Batch
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.parts.ema_teacher import EMATeacher, frozen_copy

STEPS, ROUNDS, BATCH, WARMUP = 600, 7, 256, 20


def now() -> float:
    """Seconds; on a CPU those of this process alone (one thread), which a busy machine does not stretch."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Net(SSLMethod):
    """Two linear layers and a loss of a few operations: a step so short that what surrounds it shows."""

    def __init__(self, dim: int = 64) -> None:
        backbone = nn.Sequential(nn.Linear(48, dim), nn.ReLU(), nn.Linear(dim, dim))
        backbone.out_dim = dim  # type: ignore[assignment]
        super().__init__(backbone)
        self.teacher = frozen_copy(self.backbone)

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        features = self.backbone(torch.cat(batch.views).flatten(1))  # (2B, D)
        one, two = features.chunk(2)
        return (one - two).square().mean() - features.var(0).mean().log(), features

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        loss, features = self.step(batch)
        return {"loss": loss, "features": features.detach(), "embeddings": features.detach(), "watch": {}}

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.backbone, self.teacher)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.backbone.parameters(), 0.01, momentum=0.9)


class Data(LightningDataModule):
    """The same ready batch, again and again."""

    num_classes, has_labels = 10, True
    mean, std = (0.5,) * 3, (0.25,) * 3

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        views = [torch.randn(BATCH, 3, 4, 4, device=device) for _ in range(2)]
        self.batch = Batch(views, torch.randint(10, (BATCH,), device=device), torch.arange(BATCH, device=device))
        self.train_set = type("Set", (), {"labelled": True})

    def train_dataloader(self) -> "Repeat":
        return Repeat(self.batch)


class Repeat:
    """A loader without any cost."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Batch]:
        return itertools.repeat(self.batch, STEPS)


class Clock(Callback):
    """Time of a step by a trainer, without its start."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == WARMUP:
            self.start = now()

    def on_train_epoch_end(self, *args: Any) -> None:
        self.milliseconds = 1e3 * (now() - self.start) / (STEPS - WARMUP)


def bare(device: torch.device, folder: Path) -> float:
    net, batch = Net().to(device), Data(device).batch
    optimizer = net.configure_optimizers()
    for n in range(STEPS):
        if n == WARMUP:
            start = now()
        loss, _ = net.step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return 1e3 * (now() - start) / (STEPS - WARMUP)


def trainer(device: torch.device, folder: Path, callbacks: list[Callback], logger: Any, profiler: Any = None) -> float:
    clock = Clock()
    if isinstance(profiler, NoProfiler):
        pass_over(callbacks)
    fit = Trainer(
        accelerator=device.type,
        devices=1,
        max_epochs=1,
        callbacks=[clock, *callbacks],
        logger=logger,
        profiler=profiler,
        enable_checkpointing=any(isinstance(callback, LightningCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=20,
        default_root_dir=folder,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # the progress lines
        fit.fit(Net(), Data(device))
    return clock.milliseconds


def lightning_alone(device: torch.device, folder: Path) -> float:
    return trainer(device, folder, [], False)


def ours(device: torch.device, folder: Path) -> float:
    watching = [NanGuard(), Reseed(0), ViewMosaic(folder), OnlineKNN(), Collapse(), StepLogger(), Progress()]
    return trainer(device, folder, [*watching, Interrupt(), Checkpoint(folder)], MetricsCSV(folder), NoProfiler())


def ours_with_probe(device: torch.device, folder: Path) -> float:
    watching = [NanGuard(), Reseed(0), ViewMosaic(folder), OnlineKNN(), Collapse(), StepLogger(), Progress()]
    learning = [OnlineProbe(), EMATeacher()]
    callbacks = [*watching, *learning, Interrupt(), Checkpoint(folder)]
    return trainer(device, folder, callbacks, MetricsCSV(folder), NoProfiler())


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sides: list[Callable[[torch.device, Path], float]] = [bare, lightning_alone, ours, ours_with_probe]
    times: dict[str, list[float]] = {side.__name__: [] for side in sides}
    for _ in range(ROUNDS):
        for side in sides:
            with tempfile.TemporaryDirectory() as folder:
                times[side.__name__].append(side(device, Path(folder)))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["bare"]
    print(f"a step of a tiny net, batch {BATCH}, on {device}: {base:.2f} ms in a bare loop; on top of it")
    print(f"  Lightning alone                              + {medians['lightning_alone'] - base:.2f} ms")
    print(f"  with our callbacks and csv logging           + {medians['ours'] - base:.2f} ms")
    print(f"  with the online probe and a teacher as well  + {medians['ours_with_probe'] - base:.2f} ms")


if __name__ == "__main__":
    main()
