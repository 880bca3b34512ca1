"""Stops a run at its first non-finite loss, and keeps the last good checkpoint from being overwritten by a bad one."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_lightning.core.distributed import gather_rows
from ssl_lightning.core.errors import UserError

ADVICE = "lower optimizer.base_lr, lengthen the warm-up, or use trainer.precision=32-true"
SHOWN = 16  # sample indices named in the message


class NanGuard(Callback):
    """Raises UserError naming step, epoch and sample indices of the first batch whose loss is NaN or infinite.

    One process on a CPU looks at each loss before its backward pass, so the weights are still good when it stops. On
    an accelerator, looking costs a wait for the device, and with several ranks all must agree to stop; there the losses
    are kept as they are (a reference to a scalar and to the batch's indices) and read together every n micro-batches.
    The weights may be bad by then, which is why every checkpoint first asks here (`on_save_checkpoint`): all losses so
    far and all parameters must be finite, or nothing is written.

    Args:
        every_n_batches: how many losses are read at once where reading makes the device wait.
    """

    def __init__(self, every_n_batches: int = 50) -> None:
        self.every_n_batches = every_n_batches
        self._waiting: list[tuple[int, int, Tensor, Tensor]] = []  # (step, epoch, indices (B,), loss)
        self._indices = torch.empty(0, dtype=torch.int64)
        self._at_once = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._waiting = []
        self._at_once = trainer.world_size == 1 and pl_module.device.type == "cpu"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._indices = batch.indices

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self._at_once and math.isfinite(loss.item()):
            return
        self._waiting.append((trainer.global_step, trainer.current_epoch, self._indices, loss.detach()))
        if self._at_once or len(self._waiting) >= self.every_n_batches:
            self.check()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.check()
        # A finite loss can still have a non-finite gradient, which shows in the weights before it shows in a loss.
        finite = torch.stack([torch.isfinite(p.detach()).all() for p in pl_module.parameters()])
        if not finite.all():
            name = next(name for (name, _), ok in zip(pl_module.named_parameters(), finite.tolist()) if not ok)
            step = trainer.global_step
            raise UserError(f"parameter '{name}' is not finite at step {step}, so no checkpoint was written; {ADVICE}")

    def check(self) -> None:
        """Reads the losses kept so far (one wait for the device) and raises if one of any rank's is not finite."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        losses = torch.stack([loss for *_, loss in waiting]).float()  # (n,)
        bad = ~torch.isfinite(losses)
        position = torch.arange(len(waiting), device=losses.device).masked_fill(~bad, len(waiting)).min()
        first = int(gather_rows(position[None]).min())  # the earliest on any rank: all ranks stop together
        if first == len(waiting):
            return
        step, epoch, indices, loss = waiting[first]
        samples = gather_rows(indices.to(losses.device) if bad[first] else indices.to(losses.device)[:0]).tolist()
        values = gather_rows(losses[first : first + 1]).tolist()
        value = next(v for v in values if v - v != 0)  # inf - inf and nan - nan are nan, which equals nothing
        named = ", ".join(map(str, samples[:SHOWN])) + (f" ... ({len(samples)} in all)" if len(samples) > SHOWN else "")
        where = f"the loss is {value} at step {step} (epoch {epoch}), samples {named}"
        raise UserError(f"{where}; checkpoints saved so far are good; {ADVICE}")
