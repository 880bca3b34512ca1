"""ReSSL: how a strong view relates to past images follows how the teacher sees its weak view relate to them.

Zheng et al. 2021, "ReSSL: Relational Self-Supervised Learning with Weak Augmentation", https://arxiv.org/abs/2107.09282
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.queue import Queue
from ssl_lightning.parts.teacher import Teacher


class ReSSL(SSLMethod):
    """Algorithm 1 of the paper: the first view is the strong one, the second the weak one.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        loss: scores projections against the teacher's, relative to the queue, e.g. `ReSSLLoss`.
        teacher: how the teacher follows the student; the paper holds momentum at 0.999.
        queue_size: K, past projections of the teacher.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        teacher: EMATeacher,
        queue_size: int = 65536,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.teacher = Teacher(teacher, backbone, self.projector)
        self.loss = self.scoring(loss, "z", "t", "queue")
        self.queue = Queue(queue_size, out_dim(self.projector))

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        strong, weak = batch.global_views
        features = self.backbone(strong)  # (B, D)
        z, t = self.projector(features), self.teacher(weak)  # (B, P)
        loss = self.loss(z, t, self.queue.snapshot())
        self.queue.push(normalize(t))
        return self.output(loss, features, z, t)
