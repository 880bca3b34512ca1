"""Exact means exact: stopped at any batch, killed at any write, or left in peace, a run ends with equal files."""

import contextlib
import copy
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.callbacks.interrupt import Interrupt
from ssl_lightning.callbacks.metrics_csv import MetricsCSV
from ssl_lightning.cli import run as build
from ssl_lightning.core.errors import Interrupted
from ssl_lightning.core.signals import WATCH
from tests.equal_runs import assert_equal_runs

pytestmark = pytest.mark.long

SMALL = ["data.size=24", "data.test_size=8", "data.batch_size=8", "backbone.width=4", "data.num_workers=0"]
SMALL += [
    "method.projector.hidden_dim=8",
    "method.projector.out_dim=4",
    "trainer.accelerator=cpu",
    "callbacks.online_knn.k=3",
]
SMALL += ["callbacks.step_logger.every_n_steps=2", "callbacks.online_probe.every_n_steps=3"]
SMALL += ["callbacks.collapse.every_n_steps=2", "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false"]
EPOCHS = ["trainer.max_epochs=2", "stage.judge=false"]  # 2 epochs of 3 batches


class Killed(BaseException):
    """SIGKILL, as far as one process can play it: nothing that runs on errors saves anything."""


@cache
def composed(*words: str) -> build.Config:
    return build.compose([*SMALL, *words])


def go(folder: Path, *words: str) -> dict[str, Any]:
    config = composed(*words)
    values = {**copy.deepcopy(config.values), "name": folder.name, "runs_dir": str(folder.parent)}
    with torch.random.fork_rng():
        return build.run(replace(config, values=values, path=folder))


@contextlib.contextmanager
def told_at(batch: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SIGTERM arrives in this batch of the process, from 1."""
    ask, seen = Interrupt.on_train_batch_end, [0]

    def on_train_batch_end(self: Interrupt, *args: Any) -> None:
        seen[0] += 1
        if seen[0] >= batch:
            WATCH.told = signal.SIGTERM
        ask(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "on_train_batch_end", on_train_batch_end)
        yield


@contextlib.contextmanager
def killed_at(event: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """SIGKILL at the n-th of these: before and after a file takes its name, before and after a row is written."""
    seen = [0]

    def watched(do: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*args: Any, **kwargs: Any) -> Any:
            for act in (None, do):
                result = act(*args, **kwargs) if act else None
                seen[0] += 1
                if seen[0] == event:
                    raise Killed
            return result

        return doing

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", watched(os.replace))
        patch.setattr(MetricsCSV, "log_metrics", watched(MetricsCSV.log_metrics))
        yield seen


def stopped(folder: Path, batch: int, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    with told_at(batch, monkeypatch), pytest.raises(Interrupted):
        go(folder, *words)


# (words, in which batches of the run it is told to stop)
SETTINGS: dict[str, tuple[list[str], list[int]]] = {
    "as it comes": ([], [2, 3, 6]),
    "validation after a share of an epoch": (["+trainer.val_check_interval=0.34"], [2, 3]),
    "validation every 2 batches": (["+trainer.val_check_interval=2"], [2, 3]),
    "validation every 4 batches of the run": (
        ["+trainer.val_check_interval=4", "trainer.check_val_every_n_epoch=null"],
        [3, 4],
    ),
    "validation every second epoch": (["trainer.check_val_every_n_epoch=2"], [3, 6]),
    "no validation": (["trainer.limit_val_batches=0"], [3, 6]),
    "one batch of validation": (["trainer.limit_val_batches=1"], [3]),
    "steps that end amid an epoch": (["trainer.max_epochs=-1", "trainer.max_steps=5"], [3, 5]),
    "steps that end with an epoch": (["trainer.max_epochs=-1", "trainer.max_steps=6"], [3, 6]),
    "accumulation": (["trainer.accumulate_grad_batches=2"], [1, 3, 4]),
    "part of an epoch": (["trainer.limit_train_batches=2"], [2]),
    "saved every other step": (["callbacks.checkpoint.every_n_steps=2"], [3, 4, 6]),
    "kept epochs": (
        ["callbacks.checkpoint.keep_every_n_epochs=1", "callbacks.checkpoint.every_n_epochs=2"],
        [3],
    ),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_signal_in_any_batch(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, batches = [*EPOCHS, *SETTINGS[setting][0]], SETTINGS[setting][1]
    go(tmp_path / "whole", *words)
    for batch in batches:
        folder = tmp_path / f"cut{batch}"
        stopped(folder, batch, monkeypatch, *words)
        go(folder, *words)
        assert_equal_runs(tmp_path / "whole", folder)


def test_a_kill_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*EPOCHS, "callbacks.checkpoint.every_n_steps=2"]
    with killed_at(0, monkeypatch) as events:
        go(tmp_path / "whole", *words)
    assert events[0] > 40
    for event in random.Random(0).sample(range(4, events[0] - 2), 6):  # from the first to the last write of training
        folder = tmp_path / f"cut{event}"
        with killed_at(event, monkeypatch), pytest.raises(Killed):
            go(folder, *words)
        go(folder, *words)
        assert_equal_runs(tmp_path / "whole", folder)


def test_without_a_checkpoint_callback_a_signal_saves_as_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*EPOCHS, "callbacks.checkpoint=null"]
    go(tmp_path / "whole", *words)
    stopped(tmp_path / "cut", 3, monkeypatch, *words)  # the last batch of an epoch, whose validation is due
    go(tmp_path / "cut", *words)
    (tmp_path / "whole" / "checkpoints").mkdir(exist_ok=True)
    shutil.rmtree(tmp_path / "cut" / "checkpoints")
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")
