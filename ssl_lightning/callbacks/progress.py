"""What a person watching sees: a live bar in a terminal or a notebook, plain lines in a file; one line per epoch."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import progress as rich_progress
from rich.console import Console
from torch import Tensor

from ssl_lightning.callbacks import notebook
from ssl_lightning.callbacks.labels import noun_of
from ssl_lightning.core import progress
from ssl_lightning.core.words import clock

FIRST_SECONDS = 5.0  # without a terminal the first line comes no later than this: it tells the time left


class Progress(Callback):
    """Epoch, step, loss, kNN, images/s and time left. Between two refreshes a step costs one look at the clock.

    Args:
        refresh_seconds: time between two refreshes of the bar; each reads the loss, for which an accelerator must wait.
        line_seconds: where there is no terminal, an epoch longer than this gets a line so often.
    """

    def __init__(self, refresh_seconds: float = 0.5, line_seconds: float = 30.0) -> None:
        self.refresh_seconds = refresh_seconds
        self.line_seconds = line_seconds
        self.console = Console()
        self._bar: Any = None  # rich's Progress, or a NotebookBar
        self._task = rich_progress.TaskID(0)
        self._loss: Tensor | None = None
        self._began = self._next = self._epoch_began = self._paused_at = 0.0
        self._timed = 0.0  # when the first batch of this process was done: what came before it is seldom like the rest
        self._batches = self._epoch_images = 0  # batches since the start of this process; images of this epoch

    # ---- start and end

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        self._batches = 0
        self._start_epoch()
        self._next = min(self._next, self._began + FIRST_SECONDS)
        if trainer.is_global_zero and notebook.in_notebook():
            self._bar = notebook.NotebookBar()
            self._bar.start()
        if not trainer.is_global_zero or not self.console.is_terminal or self._bar is not None:
            return
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[text]}"),
            console=self.console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, text="")
        self._bar.start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    # ---- steps

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        first = self._next
        self._start_epoch()
        if not self._batches:
            self._next = min(self._next, first)

    def _start_epoch(self) -> None:
        self._epoch_images, self._epoch_began = 0, time.perf_counter()
        self._next = self._epoch_began + (self.refresh_seconds if self._bar else self.line_seconds)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += 1
        self._epoch_images += len(batch.labels)
        self._loss = outputs["loss"]
        now = time.perf_counter()
        if self._batches == 1:
            self._timed = now
        if now < self._next or not trainer.is_global_zero:
            return
        if self._bar:
            self._next = now + self.refresh_seconds
            self._refresh(trainer, batch_idx + 1, self._text(trainer))
        else:
            self._next = now + self.line_seconds
            batches = f"{batch_idx + 1}/{trainer.num_training_batches}"
            print(f"{self._epoch(trainer)}  {batches}  {self._text(trainer)}", flush=True)
            progress.note()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused_at = time.perf_counter()
        if self._bar and self._loss is not None:
            self._refresh(trainer, trainer.num_training_batches, "validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_began += time.perf_counter() - self._paused_at

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or self._loss is None or self._passes(trainer):
            return
        line = f"{self._epoch(trainer)}  {self._text(trainer)}"
        if self._bar:
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)
        progress.note()

    @staticmethod
    def _passes(trainer: Trainer) -> bool:
        """Of a training with a title, one of several short ones, only epochs with a validation get a line."""
        done, every = trainer.current_epoch + 1, trainer.check_val_every_n_epoch or 1
        return bool(_title(trainer) and done % every and done != trainer.max_epochs)

    # ---- words

    def _refresh(self, trainer: Trainer, done: float, text: str) -> None:
        total = trainer.num_training_batches
        self._bar.update(
            self._task,
            description=self._epoch(trainer),
            completed=done,
            total=None if total == float("inf") else total,
            text=text,
        )
        self._bar.refresh()

    def _epoch(self, trainer: Trainer) -> str:
        last = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        title = _title(trainer)
        return f"{title + '  ' if title else ''}epoch {trainer.current_epoch + 1}{last}"

    def _text(self, trainer: Trainer) -> str:
        assert self._loss is not None
        now = time.perf_counter()
        speed = self._epoch_images * trainer.world_size / max(now - self._epoch_began, 1e-9)
        words = [f"loss {self._loss.item() * trainer.accumulate_grad_batches:.3f}"]
        for name, metric in (("kNN", "val/knn_top1"), ("probe", "val/probe_top1")):
            if metric in trainer.callback_metrics:
                words.append(f"{name} {100 * trainer.callback_metrics[metric].item():.1f} %")
        words += getattr(trainer.lightning_module, "progress_words", list)()
        words.append(f"{speed:,.0f} {noun_of(trainer)}s/s")
        steps_left = trainer.estimated_stepping_batches - trainer.global_step
        if 0 < steps_left < float("inf") and self._batches:
            since, batches = (self._timed, self._batches - 1) if self._batches > 1 else (self._began, 1)
            words.append(f"{clock((now - since) / batches * steps_left * trainer.accumulate_grad_batches)} left")
        return "  ".join(words)


def _title(trainer: Trainer) -> str:
    """What a stage of several trainings calls this one."""
    return str(getattr(trainer.lightning_module, "title", ""))
