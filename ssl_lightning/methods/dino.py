"""DINO: a student sees all crops and answers as its slow teacher does on the global ones; centring and sharpening keep
the teacher from giving one answer to all.

Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers", https://arxiv.org/abs/2104.14294
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch, concat
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim, projecting_head, prototype_head
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.token_pictures import attention_pictures
from ssl_lightning.optim.schedules import ramp
from ssl_lightning.parts.center import Center
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.teacher import Teacher


class DINO(SSLMethod):
    """Algorithm 1 of the paper with multi-crop. Evaluated and exported is the teacher, as in the paper.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to scores (B, K), with `out_dim` = K, `project` for the
            embeddings that are watched, and `forget_last_gradient`; e.g. `DINOHead`.
        loss: scores the student's scores against the teacher's answers, e.g. `DINOLoss`.
        teacher: how the teacher follows; momentum rises from 0.996 to 1 in the paper.
        teacher_temperature, warmup_teacher_temperature, warmup_epochs: the teacher's temperature rises along a straight
            line from the second to the first in so many epochs.
        center_momentum: of the centre; 1 for no centring.
        frozen_epochs: epochs in which the prototypes do not learn.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    uses_local_views = True
    judged_by = "teacher.networks.0"
    decayed = ("projector.scale",)  # in the authors' code a column of a matrix

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor],
        teacher: EMATeacher,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        warmup_epochs: float = 0,
        center_momentum: float = 0.9,
        frozen_epochs: int = 1,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        if not min(teacher_temperature, warmup_teacher_temperature) > 0:
            raise UserError("dino's teacher temperatures must be above 0; the paper has 0.04 to 0.07")
        self.projector = projector(out_dim(backbone))
        self.teacher = Teacher(teacher, backbone, self.projector)
        self.center = Center(out_dim(self.projector), center_momentum)
        self.loss = self.scoring(loss, "scores", "targets")
        self.temperatures = (warmup_teacher_temperature, teacher_temperature, warmup_epochs)
        self.frozen_epochs = frozen_epochs

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        features = self.features_of(batch.views)  # (B, D) each
        scores = self.projector(torch.cat(features)).chunk(len(features))  # (B, K) each
        answers = self.teacher(concat(batch.global_views))  # (2B, K)
        start, end, epochs = self.temperatures
        temperature = ramp(start, end, self.current_epoch, epochs)
        targets = self.center.sharpen(answers, temperature)
        loss = self.loss(scores, targets.chunk(2))
        self.center.update(answers)
        entropy = -(targets * targets.clamp_min(1e-12).log()).sum(1).mean()
        seen = torch.cat(features[:2])
        with torch.no_grad():
            z = projecting_head(self.projector).project(seen).chunk(2)  # (B, P) each
        return self.output(loss, seen, *z, teacher_entropy=entropy, teacher_temperature=temperature)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.current_epoch < self.frozen_epochs:
            prototype_head(self.projector).forget_last_gradient()

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Of a ViT: where the teacher's class token looks, and its patch tokens as colours."""
        return attention_pictures(self.judged, batch.views[0])
