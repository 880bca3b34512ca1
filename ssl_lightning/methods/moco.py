"""MoCo v2: a query finds its key among a queue of keys that a slowly moving teacher made of earlier batches.

He et al. 2020, "Momentum Contrast", https://arxiv.org/abs/1911.05722, with the MLP head and the views of
Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning", https://arxiv.org/abs/2003.04297
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.queue import Queue
from ssl_lightning.parts.teacher import Teacher


class MoCo(SSLMethod):
    """Algorithm 1 of the paper.

    The keys of a batch enter the queue only after they were scored, so that no image's own key is among its negatives.
    The paper shuffles each batch between GPUs, because the batch statistics of one GPU betray which key belongs to
    which query. Here BatchNorm is synchronised over all devices instead (the trainer's default on accelerators), as
    MoCo v3 does: with one set of statistics for the global batch there is nothing left to shuffle. On one device, or
    on CPU where BatchNorm stays local, the small leak that the paper describes remains.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        loss: scores queries, their keys and the queue (K, P), e.g. `InfoNCE`.
        teacher: how the key network follows the query network; the paper holds momentum at 0.999.
        queue_size: K, the number of past keys that serve as negatives.
        symmetric: each view is query once and key once (two losses, averaged); else view 1 asks and view 2 answers.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        teacher: EMATeacher,
        queue_size: int = 65536,
        symmetric: bool = False,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.teacher = Teacher(teacher, backbone, self.projector)
        self.loss = self.scoring(loss, "q", "k", "queue")
        self.symmetric = symmetric
        self.queue = Queue(queue_size, out_dim(self.projector))

    def keys(self, x: Tensor) -> Tensor:
        return normalize(self.teacher(x))  # (B, P)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x1, x2 = batch.global_views
        negatives = self.queue.snapshot()  # (K, P)
        features = self.backbone(x1)  # (B, D)
        q1, k2 = self.projector(features), self.keys(x2)  # (B, P)
        if not self.symmetric:
            loss = self.loss(q1, k2, negatives)
            self.queue.push(k2)
            return self.output(loss, features, q1, k2)
        features = torch.cat([features, self.backbone(x2)])  # (2B, D)
        q2, k1 = self.projector(features[len(x1) :]), self.keys(x1)
        loss = (self.loss(q1, k2, negatives) + self.loss(q2, k1, negatives)) / 2
        self.queue.push(k1)
        self.queue.push(k2)
        return self.output(loss, features, q1, q2)
