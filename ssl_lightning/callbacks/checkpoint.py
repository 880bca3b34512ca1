"""Saves the run: `checkpoints/last.ckpt`, written whole or not at all, and always at the last step."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from ssl_lightning.checkpoint import save_atomic
from ssl_lightning.distributed import broadcast_object
from ssl_lightning.errors import UserError

CLOCK_EVERY = 20  # steps between two looks at the clock where the ranks must agree on the time


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, renames. Lightning's own goes through $TMPDIR and does not flush."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # torch reports a full disk as a broken zip; the cause says what it was
                    raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

        save_atomic(write, path)


class Checkpoint(lightning_callbacks.Checkpoint):
    """Saves everything a resumed run needs to `<run_path>/checkpoints/last.ckpt`, as plain types.

    Lightning runs callbacks of this type after all others, so teacher and probes have made their step. It also makes
    every `trainer.save_checkpoint` of this run atomic.

    Args:
        run_path: the run's folder.
        every_n_epochs: save at the end of each n-th epoch.
        every_n_steps: also save after each n-th optimizer step.
        every_n_minutes: also save when so much time has passed since the last save.
        keep_every_n_epochs: also keep `epoch-0100.ckpt` and so on for good.
    """

    def __init__(
        self,
        run_path: str | Path,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        keep_every_n_epochs: int | None = None,
    ) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if value is not None and value < 1:
                raise UserError(f"callbacks.checkpoint.{name}={value} saves nothing; give 1 or more")
        self.folder = Path(run_path) / "checkpoints"
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.keep_every_n_epochs = keep_every_n_epochs
        self._step = 0  # global_step at the last look: a step is judged once, however many micro-batches it has
        self._epoch_saved_at = -1  # global_step of the last save at the end of an epoch
        self._saved_time = 0.0

    @property
    def path(self) -> Path:
        """Where the newest state is."""
        return self.folder / "last.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # sharded strategies bring their own
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        self._saved_time = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if (self.every_n_steps and self._step % self.every_n_steps == 0) or self._time_is_up(trainer):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0:
            self.save(trainer)
            self._epoch_saved_at = trainer.global_step
        if self.keep_every_n_epochs and epoch % self.keep_every_n_epochs == 0:
            trainer.save_checkpoint(self.folder / f"epoch-{epoch:04d}.ckpt", weights_only=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._epoch_saved_at != trainer.global_step:  # every_n_epochs does not divide the run, or max_steps cut it
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now. Every rank must call it."""
        trainer.save_checkpoint(self.path, weights_only=False)  # False: optimizer and callbacks too, not weights alone
        self._saved_time = time.monotonic()

    def _time_is_up(self, trainer: Trainer) -> bool:
        if self.every_n_minutes is None or (trainer.world_size > 1 and self._step % CLOCK_EVERY):
            return False
        return broadcast_object(time.monotonic() - self._saved_time > 60 * self.every_n_minutes)
