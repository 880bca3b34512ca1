"""Ctrl-C and SIGTERM: finish the step, save, stop, on all ranks at the same step."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.errors import Interrupted

ASK_EVERY = 0.5  # seconds between two agreements of the ranks: each costs one small collective
PATIENCE = 2.0  # seconds in which a second signal is taken for the same one


class Interrupt(lightning_callbacks.Checkpoint):
    """Turns the first signal into a stop at the end of a step with `checkpoints/last.ckpt` saved there.

    `fit` then raises `Interrupted(128 + signal)`. A second signal, some seconds later, stops at once.
    In one process the step under way is the last. In several, any rank may be the one that was told, and the ranks
    agree about every half a second, at a step that all of them compute alike. As a `Checkpoint` it runs after all
    other callbacks, so that what is saved is the end of the step for every one of them.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._told = 0  # the signal that all ranks know of
        self._told_at = 0.0
        self._previous: dict[int, Any] = {}
        self._next_ask = 0  # batches of this process until the ranks ask each other again
        self._batches = 0
        self._asked_at = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._signal, self._told, self._batches, self._next_ask = 0, 0, 0, 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # not before: Lightning calls, and puts back, what it finds
            self._previous[number] = signal.signal(number, self._receive)
        self._asked_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._told = self._told or (self._signal if trainer.world_size == 1 else self._agree(trainer))
        if self._told and not mid_window(trainer):
            self._save(trainer)
            raise Interrupted(128 + self._told)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._signal:
            self._signal, self._told_at = number, now
            if sys.stderr.isatty():
                print("\nfinishing this step and saving; once more stops at once", file=sys.stderr)
        elif now - self._told_at > PATIENCE:  # a terminal or a scheduler may tell the same thing twice
            raise Interrupted(128 + number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._receive:  # else Lightning has put back the user's own already
                signal.signal(number, handler)
        self._previous = {}

    def _agree(self, trainer: Trainer) -> int:
        """The signal that any rank has received, or 0; asked only now and then, at the same batch on every rank."""
        self._batches += 1
        if self._batches < self._next_ask:
            return 0
        now = time.monotonic()
        step_seconds = (now - self._asked_at) / max(self._batches, 1)
        mine = torch.tensor([float(self._signal), step_seconds], device=trainer.strategy.root_device)
        told, seconds = trainer.strategy.reduce(mine, reduce_op="max").tolist()  # type: ignore[union-attr]
        self._next_ask = max(1, min(1000, int(ASK_EVERY / max(seconds, 1e-6))))
        self._batches, self._asked_at = 0, now
        return int(told)

    def _save(self, trainer: Trainer) -> None:
        saving = [callback for callback in getattr(trainer, "callbacks", ()) if isinstance(callback, Checkpoint)]
        if saving:
            saving[0].save_out_of_turn(trainer)
        else:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt", weights_only=False)


def mid_window(trainer: Trainer) -> bool:
    """Are there gradients that wait for more batches to be accumulated? They are no part of a checkpoint."""
    loop = getattr(trainer, "fit_loop", None)
    return loop is not None and bool(loop._should_accumulate())
