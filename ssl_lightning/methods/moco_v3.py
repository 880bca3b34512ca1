"""MoCo v3: contrastive learning with a momentum teacher, a predictor, and the batch itself in place of a queue.

Chen et al. 2021, "An Empirical Study of Training Self-Supervised Vision Transformers", https://arxiv.org/abs/2104.02057
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.teacher import Teacher


class MoCoV3(SSLMethod):
    """Algorithm 1 of the paper.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        predictor: called with P, gives the module from projections to queries (B, P).
        loss: scores queries against the teacher's keys of the whole batch, e.g. `InfoNCE`.
        teacher: how the key networks follow; momentum rises from 0.99 to 1 in the paper.
        freeze_patch_embed: keep a ViT's patch projection at its random start, the paper's remedy for its instability
            (section 4.3).
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        predictor: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor, None], Tensor],
        teacher: EMATeacher,
        freeze_patch_embed: bool = False,
        **optim: Any,
    ) -> None:
        if freeze_patch_embed:
            embedding = getattr(backbone, "patch_embed", None)
            if not isinstance(embedding, nn.Module):
                raise UserError("method.freeze_patch_embed is for ViTs: this backbone has no patch_embed; set it false")
            embedding.requires_grad_(False)
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.predictor = predictor(out_dim(self.projector))
        self.teacher = Teacher(teacher, backbone, self.projector)
        self.loss = self.scoring(loss, "q", "k", "no queue")

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x1, x2 = batch.global_views
        features1, features2 = self.backbone(x1), self.backbone(x2)  # (B, D)
        q1, q2 = (self.predictor(self.projector(features)) for features in (features1, features2))  # (B, P)
        k1, k2 = self.teacher(x1), self.teacher(x2)  # (B, P)
        loss = self.loss(q1, k2, None) + self.loss(q2, k1, None)
        return self.output(loss, torch.cat([features1, features2]), q1, q2)
