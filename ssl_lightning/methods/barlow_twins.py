"""Barlow Twins: two views of an image correlate in every dimension, and no two dimensions repeat each other.

Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", https://arxiv.org/abs/2103.03230
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput


class BarlowTwins(SSLMethod):
    """Algorithm 1 of the paper; with another loss also VICReg and W-MSE, which differ from it in nothing else.

    Each view passes the networks by itself, so that BatchNorm never mixes the statistics of the two views.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to embeddings (B, P).
        loss: scores two batches of embeddings, e.g. `BarlowTwinsLoss`, `VICRegLoss`, `WMSELoss`.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.loss = self.scoring(loss, "z1", "z2")

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x1, x2 = batch.global_views
        features1, features2 = self.backbone(x1), self.backbone(x2)  # (B, D)
        z1, z2 = self.projector(features1), self.projector(features2)  # (B, P)
        return self.output(self.loss(z1, z2), torch.cat([features1, features2]), z1, z2)
