"""One row of training metrics every n optimizer steps, given as one dict to every logger.

Lightning's `self.log` costs about half a millisecond a call and step; here a step without a row costs a comparison.
"""

import sys
import time
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_lightning.callbacks.labels import noun_of

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

Values = dict[str, Tensor | float]


@runtime_checkable
class HasStepMetrics(Protocol):
    """A callback that has something to say of the current step; asked only when a row is logged."""

    def step_metrics(self, trainer: Trainer) -> Values: ...


def to_floats(values: Values) -> dict[str, float]:
    """Scalars as plain floats with one wait for the device, however many tensors there are."""
    names = [name for name, value in values.items() if isinstance(value, Tensor)]
    tensors = [values[name].detach().float().reshape(()) for name in names]  # type: ignore[union-attr]
    read = dict(zip(names, torch.stack(tensors).tolist() if tensors else []))
    return {name: read[name] if name in read else float(value) for name, value in values.items()}


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far: of the GPU where there is one, else of this process; 0 where that is not told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if resource is None:
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10  # getrusage counts bytes there, kilobytes here
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


class StepLogger(Callback):
    """Logs `train/loss`, `train/grad_norm` (of rank 0 before clipping), what the method watches, `train/lr`,
    `train/images_per_second`, `train/memory_mb`, and what the other callbacks have to say of the step
    (`step_metrics`), at the first step and then every n optimizer steps.

    The loss is that of the step itself, not a running mean, which would begin anew after a resume. The row of the k-th
    optimizer step has step k - 1, as Lightning counts for its own metrics.

    Args:
        every_n_steps: optimizer steps from one row to the next; None = `trainer.log_every_n_steps`.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self._every = 1
        self._logged_at = 0
        self._lr = 0.0
        self._grad_norm: Tensor | float = 0.0
        self._images = 0
        self._since = 0.0
        self._paused_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._every = self.every_n_steps or trainer.log_every_n_steps or 1  # type: ignore[attr-defined]
        self._logged_at = trainer.global_step
        self._images, self._since = 0, time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]  # the scheduler moves it on before on_train_batch_end

    def _due(self, step: int) -> bool:
        return step % self._every == 0 or step == 1

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._due(trainer.global_step + 1):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._grad_norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch.labels)
        step = trainer.global_step
        if step == self._logged_at or not self._due(step):
            return
        self._logged_at = step
        if trainer.is_global_zero:
            self._log(trainer, pl_module, outputs)
        self._images, self._since = 0, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused_at = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since += time.perf_counter() - self._paused_at

    def _log(self, trainer: Trainer, pl_module: LightningModule, outputs: Any) -> None:
        # Lightning hands over the loss already divided by the number of accumulated micro-batches.
        loss = outputs["loss"] * trainer.accumulate_grad_batches
        values: Values = {"loss": loss, "grad_norm": self._grad_norm, **outputs.get("watch", {})}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, HasStepMetrics):
                values |= callback.step_metrics(trainer)
        row = to_floats(values)  # waits for the device, so the clock below is right
        row["lr"] = self._lr
        name = "images_per_second" if noun_of(trainer) == "image" else "samples_per_second"
        row[name] = self._images * trainer.world_size / (time.perf_counter() - self._since)
        row["memory_mb"] = peak_memory_mb(pl_module.device)
        metrics = {f"train/{name}": value for name, value in row.items()} | {"epoch": float(trainer.current_epoch)}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step - 1)
