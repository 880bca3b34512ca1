"""The teacher: a frozen copy of the student, moved towards it after each optimizer step (exponential moving average).

BYOL, Grill et al. 2020, https://arxiv.org/abs/2006.07733 (momentum rising to 1 along a cosine);
MoCo, He et al. 2020, https://arxiv.org/abs/1911.05722 (constant momentum: `final_momentum == momentum`).
"""

import copy
import math
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.watched import watched
from ssl_lightning.optim.recipe import plan_of
from ssl_lightning.optim.schedules import Plan, cosine, ramp

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A deep copy of `module` with equal weights, none of which requires a gradient: what a teacher starts from.

    It drops nothing: a teacher is in train mode for its BatchNorm's sake, and its answers are not to be left to chance.
    """
    teacher = copy.deepcopy(module).requires_grad_(False)
    for part in teacher.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif hasattr(part, "drop_prob"):  # timm's DropPath
            part.drop_prob = 0.0  # type: ignore[assignment]
    return teacher


class EMATeacher(Callback):
    """Moves every teacher of `pl_module.teacher_pairs()` by t <- m t + (1 - m) s, once per optimizer step.

    Step k of K (k from 0) uses m_k = m_K - (m_K - m_0) (cos(pi k / K) + 1) / 2, or on a line m_0 + (m_K - m_0) k / K:
    a pure function of the step, so that a resumed run goes on where it stopped. It is a callback because Lightning runs
    callbacks before the module's own `on_train_batch_end` and checkpoints last: a teacher moved in the module would be
    saved one update late.

    Parameters are averaged. Integer and boolean buffers (BatchNorm's counter) are copied. Floating buffers (BatchNorm's
    running mean and variance) are left alone: the teacher runs in train mode on its own views, so its statistics
    describe its own activations, and an average of the student's would describe another network.

    Args:
        momentum: m_0, in [0, 1].
        final_momentum: m_K, in [momentum, 1].
        rise: how it gets there; linear in I-JEPA, https://arxiv.org/abs/2301.08243, appendix A.1, and MSN's code.
    """

    def __init__(
        self, momentum: float = 0.996, final_momentum: float = 1.0, rise: Literal["cosine", "linear"] = "cosine"
    ) -> None:
        if not 0.0 <= momentum <= final_momentum <= 1.0:
            raise UserError(
                f"teacher momentum {momentum} to {final_momentum}; choose 0 <= momentum <= final_momentum <= 1"
            )
        if rise not in ("cosine", "linear"):
            raise UserError(f"the teacher's momentum rises by rise=cosine or rise=linear, not {rise}")
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.rise = cosine if rise == "cosine" else ramp
        self._moved_at = (
            0  # global_step of the last update; set anew at each start, so it needs no place in the checkpoint
        )
        self._plan = Plan((math.inf,))
        self._teacher: list[Tensor] = []
        self._student: list[Tensor] = []
        self._teacher_counters: list[Tensor] = []
        self._student_counters: list[Tensor] = []

    def current(self, step: int, total: float) -> float:
        """Momentum of optimizer step `step` (from 0) in a run of `total` steps."""
        if self.momentum == self.final_momentum:
            return self.momentum
        return self.rise(self.momentum, self.final_momentum, step, total)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._moved_at = trainer.global_step
        self._plan = plan_of(trainer)
        if math.isinf(self._plan.ends[-1]) and self.momentum != self.final_momentum:
            raise UserError(
                "the teacher's momentum follows the length of the run; set trainer.max_epochs or trainer.max_steps"
            )
        self._collect(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._moved_at:  # a micro-batch of an accumulated step: the student has not moved
            return
        self._moved_at = trainer.global_step
        self.move(self.current(*self._plan.place(trainer.global_step - 1)))

    def step_metrics(self, trainer: Trainer) -> dict[str, Tensor | float]:
        """For the StepLogger: the momentum of the last step."""
        return {"teacher_momentum": self.current(*self._plan.place(trainer.global_step - 1))}

    @torch.no_grad()
    def move(self, momentum: float) -> None:
        """One update of all teachers in one fused pass over memory."""
        torch._foreach_lerp_(self._teacher, self._student, 1.0 - momentum)
        if self._teacher_counters:
            torch._foreach_copy_(self._teacher_counters, self._student_counters)

    def _collect(self, pl_module: LightningModule) -> None:
        """Lists the tensors once, on their device: walking the modules each step costs as much as the update."""
        self._teacher, self._student, self._teacher_counters, self._student_counters = [], [], [], []
        for student, teacher in watched(pl_module).teacher_pairs():
            for (name, s), (_, t) in zip(student.named_parameters(), teacher.named_parameters(), strict=True):
                _check(name, s, t)
                self._student.append(s.detach())
                self._teacher.append(t.detach())
            for counter, copied in zip(student.buffers(), teacher.buffers(), strict=True):
                if not counter.is_floating_point():
                    self._student_counters.append(counter)
                    self._teacher_counters.append(copied)


def _check(name: str, student: Tensor, teacher: Tensor) -> None:
    if teacher.requires_grad:
        raise UserError(
            f"the teacher's parameter '{name}' requires a gradient; make the teacher with frozen_copy(student)"
        )
    if student.shape != teacher.shape:
        raise UserError(
            f"parameter '{name}' is {tuple(student.shape)} in the student and {tuple(teacher.shape)} in the teacher; "
            "make the teacher with frozen_copy(student)"
        )
    if teacher.dtype in (torch.float16, torch.bfloat16):
        # (1 - m) = 0.004 is below half a unit in the last place of bfloat16: the teacher would never move.
        raise UserError(
            f"the teacher's '{name}' is {teacher.dtype}, too coarse to average; use trainer.precision=bf16-mixed"
        )
