"""Ctrl-C, SIGTERM and their like in training: finish the step, save, stop, on all ranks at the same step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.core.errors import Interrupted
from ssl_lightning.core.signals import WATCH, status

ASK_EVERY = 0.5  # seconds between two agreements of the ranks: each costs one small collective


def keep_lightning_out(trainer: Trainer) -> None:
    """Leave signals to us: Lightning's handlers save in the middle of a step (under SLURM), or broadcast there."""
    trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]


def _nothing() -> None:
    """Of a module, so that trainers can be pickled (ddp_spawn)."""


class Interrupt(lightning_callbacks.Checkpoint):
    """Turns the first signal into a stop at the end of a step with `checkpoints/last.ckpt` saved there.

    `fit` then raises `Interrupted` with the exit status (see signals.py). A second signal, some seconds later, stops at
    once. In one process the step under way is the last. In several, any rank may be the one that was told, and the
    ranks agree about every half a second, at a step that all of them compute alike. As a `Checkpoint` it runs after all
    other callbacks, so that what is saved is the end of the step for every one of them.
    """

    def __init__(self) -> None:
        self._watching = False
        self._told = 0  # the signal that all ranks know of
        self._next_ask = 0  # batches of this process until the ranks ask each other again
        self._batches = 0
        self._asked_at = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._batches, self._next_ask, self._told = 0, 1, 0
        keep_lightning_out(trainer)
        if not self._watching:
            WATCH.__enter__()
            self._watching = True
        WATCH.holding = trainer.world_size > 1  # from here on the ranks wait for each other: none may leave alone

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        WATCH.holding = True
        self._asked_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._listen(trainer)
        if self._told and not mid_window(trainer):
            self._save(trainer)
            raise Interrupted(status(self._told))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A signal since the last batch, in its validation for example, stops the run when `fit` has ended."""
        self._next_ask = 0
        self._listen(trainer)
        if self._told and not any(isinstance(other, Checkpoint) for other in trainer.callbacks):  # type: ignore[attr-defined]
            self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        told = self._told or WATCH.told
        self._leave()
        if told:
            raise Interrupted(status(told))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._watching:
            self._watching = WATCH.holding = False
            WATCH.__exit__()

    def _listen(self, trainer: Trainer) -> None:
        self._told = self._told or (WATCH.told if trainer.world_size == 1 else self._agree(trainer))

    def _agree(self, trainer: Trainer) -> int:
        """The signal that any rank has received, or 0; asked only now and then, at the same batch on every rank."""
        self._batches += 1
        if self._batches < self._next_ask:
            return 0
        now = time.monotonic()
        step_seconds = (now - self._asked_at) / max(self._batches, 1)
        mine = torch.tensor([float(WATCH.told), step_seconds], device=trainer.strategy.root_device)
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
