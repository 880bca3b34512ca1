"""Schedules as pure functions of the step: nothing to save, nothing that can drift when a run is resumed."""

import math
from dataclasses import dataclass


def cosine(start: float, end: float, step: float, total: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at step `total`, exactly, and `end` from there on.

    >>> [round(cosine(0.99, 1.0, step, 4), 4) for step in range(6)]
    [0.99, 0.9915, 0.995, 0.9985, 1.0, 1.0]
    """
    if step >= total:
        return end
    return start + (end - start) * (1 - math.cos(math.pi * max(step, 0) / total)) / 2


def ramp(start: float, end: float, step: float, total: float) -> float:
    """A straight line from `start` at step 0 to `end` at step `total`, and `end` from there on.

    >>> [round(ramp(0.04, 0.07, epoch, 3), 2) for epoch in range(5)]
    [0.04, 0.05, 0.06, 0.07, 0.07]
    """
    return end if step >= total else start + (end - start) * step / total


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up from `warmup_start_lr` to the peak rate, then half a cosine to `min_lr` at the last step.

    The warm-up lasts `warmup_epochs`, but at most a tenth of the run, so that a short run has one too.
    Both rates are never above the peak.
    """

    warmup_epochs: float = 10
    warmup_start_lr: float = 3e-5
    min_lr: float = 0.0

    def warmup_steps(self, total_steps: int, steps_per_epoch: int) -> int:
        return min(round(self.warmup_epochs * steps_per_epoch), total_steps // 10)

    def factor(self, step: int, total_steps: int, steps_per_epoch: int, peak_lr: float) -> float:
        """The rate of `step` (0 to total_steps - 1) over the peak rate, in [0, 1]."""
        warmup = self.warmup_steps(total_steps, steps_per_epoch)
        if step < warmup:
            start = min(self.warmup_start_lr / peak_lr, 1.0)
            return start + (1 - start) * step / warmup
        last = total_steps - 1
        if last == 0:
            return 1.0  # a run of one step should take it
        return cosine(1.0, min(self.min_lr / peak_lr, 1.0), step - warmup, last - warmup)


@dataclass(frozen=True)
class Constant:
    """The peak rate at every step."""

    def factor(self, step: int, total_steps: int, steps_per_epoch: int, peak_lr: float) -> float:
        return 1.0
