"""Signals during training: the step is finished, the state saved, all ranks stop at the same step."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_lightning.callbacks.interrupt import Interrupt
from ssl_lightning.core import signals
from ssl_lightning.core.errors import Interrupted
from ssl_lightning.core.signals import NUMBERS
from tests.gloo import run_two


class Module(LightningModule):
    """Sends its own process signals at given batches, as a user would."""

    def __init__(self, signals: dict[int, int] | None = None, pause: float = 0.0) -> None:
        super().__init__()
        self.layer, self.signals, self.pause, self.seen = nn.Linear(2, 1), signals or {}, pause, 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.global_step in self.signals:
            os.kill(os.getpid(), self.signals[self.global_step])
            time.sleep(self.pause)
        self.seen += 1
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Module, folder: Path, ckpt: Path | None = None, epochs: int = 2) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        callbacks=[Interrupt()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(TensorDataset(torch.arange(16.0).view(8, 2)), batch_size=1)
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    return trainer


pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:FutureWarning")


@pytest.mark.parametrize("number", NUMBERS)
def test_the_step_is_finished_and_saved(number: int, tmp_path: Path) -> None:
    before = [signal.getsignal(n) for n in NUMBERS]
    module = Module({3: number})
    with pytest.raises(Interrupted) as caught:
        fit(module, tmp_path)
    assert caught.value.code == (130 if number == signal.SIGINT else 75)
    path = tmp_path / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    assert saved["global_step"] == module.seen == 4
    assert torch.equal(saved["state_dict"]["layer.weight"], module.layer.weight)
    assert [signal.getsignal(n) for n in NUMBERS] == before

    rest = Module()
    fit(rest, tmp_path, ckpt=path)
    assert rest.seen == 16 - 4


def test_without_a_signal_nothing_happens(tmp_path: Path) -> None:
    before = [signal.getsignal(n) for n in NUMBERS]
    fit(Module(), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    assert [signal.getsignal(n) for n in NUMBERS] == before


def test_the_same_signal_told_twice_is_one_and_a_later_one_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice(Module):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            if self.global_step in self.signals:
                os.kill(os.getpid(), signal.SIGTERM)
                self.seen += 100
            return loss

    module = Twice({2: signal.SIGTERM})
    with pytest.raises(Interrupted):
        fit(module, tmp_path / "a")
    assert module.seen == 103
    assert (tmp_path / "a" / "checkpoints" / "last.ckpt").exists()

    monkeypatch.setattr(signals, "PATIENCE", 0.01)
    module = Twice({2: signal.SIGTERM}, pause=0.05)
    with pytest.raises(Interrupted):
        fit(module, tmp_path / "b")
    assert module.seen == 3  # in the middle of a step
    assert not (tmp_path / "b" / "checkpoints").exists()


def test_one_after_the_last_batch_is_not_swallowed(tmp_path: Path) -> None:
    """In the last epoch's validation, say: the run is trained to its end, and stops before what would come next."""

    class Late(Module):
        def on_train_epoch_end(self) -> None:
            if self.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGHUP)

    before, module = [signal.getsignal(n) for n in NUMBERS], Late()
    with pytest.raises(Interrupted) as caught:
        fit(module, tmp_path)
    assert caught.value.code == 75
    assert module.seen == 16
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 16
    assert [signal.getsignal(n) for n in NUMBERS] == before


def test_one_before_the_first_batch_stops_after_it_or_at_once(tmp_path: Path) -> None:
    class Early(Module):
        def on_train_epoch_start(self) -> None:
            os.kill(os.getpid(), signal.SIGUSR2)

        def on_fit_start(self) -> None:
            if self.signals:
                os.kill(os.getpid(), signal.SIGUSR2)

    for signals_, seen in (({}, 1), ({99: 0}, 0)):
        module = Early(signals_)
        with pytest.raises(Interrupted) as caught:
            fit(module, tmp_path / str(seen))
        assert (caught.value.code, module.seen) == (75, seen)


class Strategy:
    """The one thing the callback asks of Lightning's strategies."""

    root_device = torch.device("cpu")

    def reduce(self, tensor: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "max"
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor


def stops_at(rank: int, world_size: int, told_batch: int) -> list[list[int]]:
    """[batch, exit status, saves] of this rank, for rank 0 and then rank 1 being the one that is told."""
    ends = []
    for told_rank in range(world_size):
        saves: list[Path] = []
        trainer: Any = SimpleNamespace(
            world_size=world_size,
            strategy=Strategy(),
            _signal_connector=SimpleNamespace(),
            default_root_dir=".",
            save_checkpoint=lambda path, weights_only, saves=saves: saves.append(path),
        )
        callback, module = Interrupt(), Module()
        callback.setup(trainer, module, "fit")
        callback.on_train_start(trainer, module)
        for batch in range(10_000):
            if rank == told_rank and batch == told_batch:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.002 * (rank + 1))
            try:
                callback.on_train_batch_end(trainer, module, None, None, batch)
            except Interrupted as stop:
                callback.on_exception(trainer, module, stop)
                ends.append([batch, stop.code, len(saves)])
                break
    return ends


@pytest.mark.long
def test_all_ranks_stop_at_the_same_step_whichever_was_told() -> None:
    first, second = run_two(stops_at, 20)
    assert first == second
    assert len(first) == 2
    for batch, code, saves in first:
        assert 20 <= batch <= 20 + 300  # within about half a second
        assert (code, saves) == (75, 1)
