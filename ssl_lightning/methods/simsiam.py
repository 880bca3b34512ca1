"""SimSiam: a view predicts the other view's projection, through which no gradient goes; no negatives, no teacher.

Chen & He 2021, "Exploring Simple Siamese Representation Learning", https://arxiv.org/abs/2011.10566
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput


class SimSiam(SSLMethod):
    """Algorithm 1 of the paper.

    Its loss is the paper's plus 1, in [0, 2]: half of BYOL's for each direction, averaged over the two.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        predictor: called with P, gives the module from projections to predictions (B, P); it learns at a constant rate.
        loss: scores predictions against projections without gradient, e.g. `BYOLLoss`.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    constant_lr = ("predictor",)

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        predictor: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.predictor = predictor(out_dim(self.projector))
        self.loss = self.scoring(loss, "p", "z")

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x1, x2 = batch.global_views
        features1, features2 = self.backbone(x1), self.backbone(x2)  # (B, D)
        z1, z2 = self.projector(features1), self.projector(features2)  # (B, P)
        p1, p2 = self.predictor(z1), self.predictor(z2)  # (B, P)
        loss = (self.loss(p1, z2.detach()) + self.loss(p2, z1.detach())) / 4
        return self.output(loss, torch.cat([features1, features2]), z1, z2)
