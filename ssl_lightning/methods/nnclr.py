"""NNCLR: the positive of a view is not the other view's image but that image's nearest neighbour among past ones.

Dwibedi et al. 2021, "With a Little Help from My Friends", https://arxiv.org/abs/2104.14548
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.forms import full_precision
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.parts.queue import Queue


class NNCLR(SSLMethod):
    """Equations 2 to 4 of the paper, both directions.

    The batch enters the support set after it was searched: earlier, each view would be its own neighbour.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        predictor: called with P, gives the module from projections to predictions (B, P).
        loss: scores neighbours against the predictions of the whole batch, e.g. `InfoNCE`.
        queue_size: vectors in the support set.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        predictor: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor, None], Tensor],
        queue_size: int = 65536,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.predictor = predictor(out_dim(self.projector))
        self.loss = self.scoring(loss, "q", "k", "no queue")
        self.support = Queue(queue_size, out_dim(self.projector))

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """(B, P) -> the support set's nearest vectors (B, P), by cosine."""
        vectors = self.support.vectors
        with full_precision(z):  # in bfloat16 hundreds of neighbours would be equally near
            return vectors[(normalize(z.to(vectors.dtype)) @ vectors.T).argmax(1)]

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x1, x2 = batch.global_views
        features1, features2 = self.backbone(x1), self.backbone(x2)  # (B, D)
        z1, z2 = self.projector(features1), self.projector(features2)  # (B, P)
        p1, p2 = self.predictor(z1), self.predictor(z2)  # (B, P)
        loss = (self.loss(self.nearest(z1), p2, None) + self.loss(self.nearest(z2), p1, None)) / 2
        self.support.push(normalize(z1.detach()))
        return self.output(loss, torch.cat([features1, features2]), z1, z2)
