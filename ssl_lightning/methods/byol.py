"""BYOL: the student predicts what its slowly moving teacher says of the other view; there are no negatives.

Grill et al. 2020, "Bootstrap Your Own Latent", https://arxiv.org/abs/2006.07733
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


class BYOL(SSLMethod):
    """Section 3 of the paper, both directions.

    Each view passes the networks by itself, so that BatchNorm never mixes the statistics of the two views.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        predictor: called with P, gives the module from projections to predictions (B, P).
        loss: scores predictions against the teacher's projections, e.g. `BYOLLoss`.
        teacher: how the teacher follows the student; momentum rises from 0.996 to 1 in the paper.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        predictor: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        teacher: EMATeacher,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.predictor = predictor(out_dim(self.projector))
        self.teacher = Teacher(teacher, backbone, self.projector)
        self.loss = self.scoring(loss, "p", "t")

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x1, x2 = batch.global_views
        features1, features2 = self.backbone(x1), self.backbone(x2)  # (B, D)
        z1, z2 = self.projector(features1), self.projector(features2)  # (B, P)
        p1, p2 = self.predictor(z1), self.predictor(z2)  # (B, P)
        t1, t2 = self.teacher(x1), self.teacher(x2)  # (B, P)
        loss = self.loss(p1, t2) + self.loss(p2, t1)
        return self.output(loss, torch.cat([features1, features2]), z1, z2)
