"""TiCo: follow a teacher, and keep away from the directions in which past embeddings vary most.

Zhu et al. 2022, "TiCo: Transformation Invariance and Covariance Contrast", https://arxiv.org/abs/2206.10698
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.teacher import Teacher


class TiCo(SSLMethod):
    """Algorithm 1 of the paper: the first view is the student's, the second the teacher's.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        loss: scores projections against the teacher's and the covariance, and gives the new one, e.g. `TiCoLoss`.
        teacher: how the teacher follows the student; momentum rises from 0.99 to 1 in the paper.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    covariance: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
        teacher: EMATeacher,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.teacher = Teacher(teacher, backbone, self.projector)
        self.loss = self.scoring(loss, "z", "t", "covariance")
        dim = out_dim(self.projector)
        self.register_buffer("covariance", torch.zeros(dim, dim))

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x1, x2 = batch.global_views
        features = self.backbone(x1)  # (B, D)
        z, t = self.projector(features), self.teacher(x2)  # (B, P)
        loss, covariance = self.loss(z, t, self.covariance)
        self.covariance = covariance.to(self.covariance.dtype)
        return self.output(loss, features, z, t)
