"""Saves the run: `checkpoints/last.ckpt`, written whole or not at all, and always at the last step."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from ssl_lightning.callbacks.exact_loops import make_exact
from ssl_lightning.config.allowed import shown
from ssl_lightning.core.distributed import broadcast_object, gather_rows, is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.saving import fallen_back, load, load_newest, previous, save_atomic

NEWEST = "last.ckpt"
PASSING = "passing"  # marks a checkpoint that was saved out of turn
CLOCK_EVERY = 20  # steps between two looks at the clock where the ranks must agree on the time


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes whole files, keeps the one before the last, and reads no file that is not as it was written.

    Lightning's own goes through $TMPDIR, does not flush, keeps one, and loads whatever can be unpickled.

    Args:
        root: the run's folder; elsewhere nothing is removed but what this very process has saved.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        super().__init__()
        self.root = root
        self._saved: set[str] = set()  # by this process
        self._good = False  # whether the newest checkpoint is one to come back to

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        newest = Path(path).name == NEWEST
        self._saved.add(str(Path(path)))
        save_atomic(checkpoint, path, keep=previous(path) if newest and self._good else None)
        self._good = PASSING not in checkpoint if newest else self._good

    def remove_checkpoint(self, path: str | Path) -> None:
        """What a checkpoint names to be removed anybody may have written: ModelCheckpoint keeps its old paths there."""
        path = Path(path)
        inside = self.root is not None and path.resolve().is_relative_to(Path(self.root).resolve())
        if str(path) not in self._saved and not (inside and path.suffix == ".ckpt"):
            print(f"left alone: {shown(str(path))}, an old checkpoint outside this run", file=sys.stderr, flush=True)
            return
        super().remove_checkpoint(path)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """All ranks read the same one: the newest that every one of them finds whole."""
        path = Path(path).with_name(NEWEST) if Path(path).name == previous(path).name else Path(path)
        if path.name != NEWEST:
            return load(path)
        checkpoint, used = load_newest(path, agreed=_on_all_ranks)
        if used != path and is_main():
            print(fallen_back(path, used), file=sys.stderr, flush=True)
        self._good = used == path and PASSING not in checkpoint
        return checkpoint


def go_on_exactly(trainer: Trainer) -> None:
    """Make every checkpoint that this trainer writes whole or absent, and its loops go on from one exactly there."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # sharded strategies bring their own
        trainer.strategy.checkpoint_io = AtomicCheckpointIO(trainer.default_root_dir)
    make_exact(trainer)


def _on_all_ranks(here: bool) -> bool:
    return bool(gather_rows(torch.tensor([here])).all())


class Checkpoint(lightning_callbacks.Checkpoint):
    """Saves everything a resumed run needs to `<run_path>/checkpoints/last.ckpt`, as plain types.

    Lightning runs callbacks of this type after all others, so teacher and probes have made their step. It also makes
    every `trainer.save_checkpoint` of this run atomic, and the loops go on from any of them exactly where it was saved.
    The checkpoint before the last stays as `previous.ckpt`, to come back to should the last be damaged. One that was
    saved because of a signal does not: an interrupted run ends with the same two files as any other.

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
        self._passing = False

    @property
    def path(self) -> Path:
        """Where the newest state is."""
        return self.folder / NEWEST

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        go_on_exactly(trainer)
        if not trainer.ckpt_path:  # a new run has no rows; those of a checkpoint without a count speak for themselves
            self._restore_loggers(trainer, {str(logger.name): {"rows": 0} for logger in trainer.loggers})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        self._saved_time = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return
        in_turn = self._in_turn(trainer)
        self._step = trainer.global_step
        if in_turn or self._time_is_up(trainer):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        # First: a run that is killed between the two comes back to before both.
        if self.keep_every_n_epochs and epoch % self.keep_every_n_epochs == 0:
            trainer.save_checkpoint(self.folder / f"epoch-{epoch:04d}.ckpt", weights_only=False)
        if epoch % self.every_n_epochs == 0:
            self.save(trainer)
            self._epoch_saved_at = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._epoch_saved_at != trainer.global_step:  # every_n_epochs does not divide the run, or max_steps cut it
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now. Every rank must call it."""
        trainer.save_checkpoint(self.path, weights_only=False)  # False: optimizer and callbacks too, not weights alone
        self._saved_time = time.monotonic()

    def save_out_of_turn(self, trainer: Trainer) -> None:
        """Save at the end of a batch, because the run is to stop there. Every rank must call it."""
        self._passing = not self._in_turn(trainer)
        self.save(trainer)
        self._passing = False

    def _in_turn(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        return bool(self.every_n_steps and step != self._step and step % self.every_n_steps == 0)

    # ---- what else a checkpoint holds

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["loggers"] = {logger.name: logger.state_dict() for logger in _stateful(trainer)}
        if self._passing:
            checkpoint[PASSING] = True

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._restore_loggers(trainer, checkpoint.get("loggers", {}))

    @staticmethod
    def _restore_loggers(trainer: Trainer, states: dict[str, Any]) -> None:
        for logger in _stateful(trainer):
            if logger.name in states:
                logger.load_state_dict(states[logger.name])

    def _time_is_up(self, trainer: Trainer) -> bool:
        if self.every_n_minutes is None or (trainer.world_size > 1 and self._step % CLOCK_EVERY):
            return False
        return broadcast_object(time.monotonic() - self._saved_time > 60 * self.every_n_minutes)


def _stateful(trainer: Trainer) -> list[Any]:
    """The loggers that know how far they are."""
    return [logger for logger in trainer.loggers if hasattr(logger, "load_state_dict")]
