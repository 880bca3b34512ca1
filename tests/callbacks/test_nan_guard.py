"""NanGuard: the first non-finite loss stops the run, is named, and no checkpoint is spoilt."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.nan_guard import NanGuard
from ssl_lightning.core.errors import UserError
from tests.callbacks.toy import ToyData, ToyMethod, fit


def data_with_a_bad_batch(position: int) -> ToyData:
    data = ToyData()
    data.train_set.items[position].views[0][5] = float("nan")
    return data


class Deferred(NanGuard):
    """The guard as on an accelerator: losses are read together, later."""

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        self._at_once = False


def test_stops_before_the_bad_step(tmp_path: Path) -> None:
    method = ToyMethod()
    guard, saver = NanGuard(), Checkpoint(tmp_path, every_n_steps=1)
    with pytest.raises(UserError, match=r"loss is nan at step 3 \(epoch 0\), samples 48, 49, .*, 63; .*base_lr"):
        fit(method, tmp_path, [guard, saver], data_with_a_bad_batch(3), max_epochs=1)
    assert all(torch.isfinite(p).all() for p in method.parameters())
    assert torch.load(saver.path, weights_only=True)["global_step"] == 3


@pytest.mark.parametrize(("every", "saves"), [(2, False), (50, True), (50, False)])
def test_deferred_guard_names_the_same_batch_and_spoils_no_checkpoint(tmp_path: Path, every: int, saves: bool) -> None:
    saver = Checkpoint(tmp_path, every_n_steps=1 if saves else 2)
    with pytest.raises(UserError, match=r"step 2 \(epoch 0\), samples 32, 33"):
        fit(ToyMethod(), tmp_path, [Deferred(every), saver], data_with_a_bad_batch(2), max_epochs=1)
    saved = torch.load(saver.path, weights_only=True)
    assert saved["global_step"] == 2
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_finite_loss_with_a_bad_gradient_is_not_saved(tmp_path: Path) -> None:
    class BadGradient(ToyMethod):
        def training_step(self, batch, batch_idx):
            out = super().training_step(batch, batch_idx)
            if batch_idx == 4:
                out["loss"] = out["loss"] + (self.backbone[0].weight * 0).norm()  # norm at 0 through sqrt
                out["loss"].register_hook(lambda grad: grad * float("nan"))
            return out

    saver = Checkpoint(tmp_path, every_n_steps=4)
    with pytest.raises(UserError, match=r"'backbone\.0\.weight' is not finite at step 5, so no checkpoint was written"):
        fit(BadGradient(), tmp_path, [NanGuard(), saver], max_epochs=1)
    assert torch.load(saver.path, weights_only=True)["global_step"] == 4


def test_a_good_run_is_left_alone(tmp_path: Path) -> None:
    guard = Deferred(3)
    trainer = fit(ToyMethod(), tmp_path, [guard], max_epochs=2)
    assert trainer.global_step == 10
    assert guard._waiting == []


def test_is_silent_about_weights_it_does_not_know(tmp_path: Path) -> None:
    class Broken(Callback):
        def on_train_start(self, trainer, pl_module):
            pl_module.register_buffer("mask", torch.tensor([float("-inf"), 0.0]))

    fit(ToyMethod(), tmp_path, [NanGuard(), Broken(), Checkpoint(tmp_path)], max_epochs=1)
    assert (tmp_path / "checkpoints/last.ckpt").is_file()
