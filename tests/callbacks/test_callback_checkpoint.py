"""Checkpoint: when it saves, that a save is whole or absent, and that it holds plain types only."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.core.errors import UserError
from ssl_lightning.parts.ema_teacher import EMATeacher
from tests.callbacks.toy import ToyMethod, fit


class Saves(Checkpoint):
    """Notes the step of each save."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps: list[int] = []

    def save(self, trainer):
        super().save(trainer)
        assert torch.load(self.path, weights_only=True)["global_step"] == trainer.global_step
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("settings", "trainer", "expected"),
    [
        ({}, {"max_epochs": 3}, [5, 10, 15]),
        ({"every_n_epochs": 2}, {"max_epochs": 3}, [10, 15]),
        ({"every_n_epochs": 99}, {"max_epochs": 3}, [15]),
        ({"every_n_epochs": 99}, {"max_epochs": -1, "max_steps": 7}, [7]),
        ({"every_n_epochs": 99, "every_n_steps": 4}, {"max_epochs": 2}, [4, 8, 10]),
        ({"every_n_epochs": 99, "every_n_steps": 2}, {"max_epochs": 2, "accumulate_grad_batches": 2}, [2, 4, 6, 6]),
        ({"every_n_epochs": 99, "every_n_minutes": 0}, {"max_epochs": 1}, [1, 2, 3, 4, 5, 5]),
        ({"every_n_epochs": 99, "every_n_minutes": 60}, {"max_epochs": 1}, [5]),
    ],
)
def test_saves_when_told_and_always_at_the_last_step(tmp_path: Path, settings, trainer, expected) -> None:
    saver = Saves(tmp_path, **settings)
    fit(ToyMethod(), tmp_path, [saver], **trainer)
    assert saver.steps == expected
    kept = ["last.ckpt", "previous.ckpt"] if len(expected) > 1 else ["last.ckpt"]
    assert sorted(p.name for p in saver.folder.iterdir()) == kept
    for name, step in zip(reversed(kept), expected[-2:]):
        assert torch.load(saver.folder / name, weights_only=True)["global_step"] == step


def test_kept_epochs_stay(tmp_path: Path) -> None:
    fit(ToyMethod(), tmp_path, [Checkpoint(tmp_path, keep_every_n_epochs=2)], max_epochs=5)
    folder = tmp_path / "checkpoints"
    kept = ["epoch-0002.ckpt", "epoch-0004.ckpt", "last.ckpt", "previous.ckpt"]
    assert sorted(p.name for p in folder.iterdir()) == kept
    assert torch.load(folder / "epoch-0002.ckpt", weights_only=True)["global_step"] == 10


def test_runs_last_and_holds_the_state_of_the_other_callbacks(tmp_path: Path) -> None:
    method = ToyMethod(teacher=EMATeacher())
    trainer = fit(method, tmp_path, [Checkpoint(tmp_path), OnlineProbe(every_n_steps=1)], max_epochs=1)
    assert isinstance(trainer.callbacks[-1], Checkpoint)
    assert isinstance(trainer.checkpoint_callback, Checkpoint)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert saved["callbacks"]["OnlineProbe"]["steps"] == 5
    assert saved["optimizer_states"][0]["state"]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 20 kB, which to a writer looks like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_is_named_and_leaves_the_old_checkpoint(tmp_path: Path, small_disk: None) -> None:
    class Swells(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                pl_module.register_buffer("ballast", torch.zeros(50_000))

    with pytest.raises(UserError, match=r"cannot write .*checkpoints/last\.ckpt: .*too large; choose another folder"):
        fit(ToyMethod(), tmp_path, [Swells(), Checkpoint(tmp_path)], max_epochs=4)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 10


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"callbacks\.checkpoint\.every_n_epochs=0 saves nothing"):
        Checkpoint(tmp_path, every_n_epochs=0)
