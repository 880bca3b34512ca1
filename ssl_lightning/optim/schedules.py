"""Schedules as pure functions of the step: nothing to save, nothing that can drift when a run is resumed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Extend = Literal["stretch", "hold", "rewarm"]


@dataclass(frozen=True)
class Plan:
    """How many optimizer steps a run has, and where it was to end before it was made longer.

    `place(step)` is where a schedule, a function of a step and a number of steps, is to be read. Up to the first end
    that is (step, first end). From an end on, as `extend` says,

    - stretch: (step, the next end), so the value that a run of that length from its start has at this step;
    - hold: the place of the last step before, so every schedule keeps its value;
    - rewarm: the steps since that end, of those that are added, so every schedule begins again.

    A pure function of the step: a run that stops within its extension goes on exactly.

    Args:
        ends: in steps, increasing; the last is the run's end, which may be inf.
        extend: one for each end but the last.
    """

    ends: tuple[float, ...]
    extend: tuple[str, ...] = ()

    @classmethod
    def of(cls, total: float, earlier: Iterable[tuple[float, str]] = ()) -> "Plan":
        """From (end, extend) pairs, oldest first; an end that is not before the next one is none."""
        ends, extend = [total], list[str]()
        for end, way in reversed(list(earlier)):
            if 0 < end < ends[0]:
                ends.insert(0, end)
                extend.insert(0, way)
        return cls(tuple(ends), tuple(extend))

    def place(self, step: int) -> tuple[int, float]:
        """(step, total steps) to read a schedule at.

        >>> [Plan((4, 8), ("stretch",)).place(step) for step in (3, 4)]
        [(3, 4), (4, 8)]
        >>> [Plan((4, 8), ("hold",)).place(step) for step in (3, 4, 7)]
        [(3, 4), (3, 4), (3, 4)]
        >>> [Plan((4, 8), ("rewarm",)).place(step) for step in (3, 4, 7)]
        [(3, 4), (0, 4), (3, 4)]
        """
        part = sum(end <= step for end in self.ends[:-1])
        while part and self.extend[part - 1] == "hold":
            step, part = int(self.ends[part - 1]) - 1, part - 1
        if part and self.extend[part - 1] == "rewarm":
            start = self.ends[part - 1]
            return step - int(start), self.ends[part] - start
        return step, self.ends[part]


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
    Both rates are never above the peak. `extend`: how all schedules go on where a run is made longer (`Plan`).
    """

    warmup_epochs: float = 10
    warmup_start_lr: float = 3e-5
    min_lr: float = 0.0
    extend: Extend = "stretch"

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
    """The peak rate at every step. `extend`: how all other schedules go on where a run is made longer (`Plan`)."""

    extend: Extend = "stretch"

    def factor(self, step: int, total_steps: int, steps_per_epoch: int, peak_lr: float) -> float:
        return 1.0
