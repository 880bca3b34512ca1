"""Relational self-supervised learning: eq. 4 of Zheng et al. 2021, https://arxiv.org/abs/2107.09282."""

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.forms import check_contrastive, full_precision, same_shape, widen


class ReSSLLoss(nn.Module):
    """The student's similarities to the queue, as a distribution, follow the teacher's, which is the sharper one.

    Samples do not meet: DDP's average over ranks is already that of the global batch.

    Args:
        temperature: of the student, > 0.
        teacher_temperature: > 0 and below the student's.
    """

    def __init__(self, temperature: float = 0.1, teacher_temperature: float = 0.04) -> None:
        super().__init__()
        check_contrastive(temperature)
        check_contrastive(teacher_temperature)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature

    def forward(self, z: Tensor, t: Tensor, queue: Tensor) -> Tensor:
        """z, t (B, P) of any length, queue (K, P) -> scalar; no gradient goes to t."""
        same_shape(z=z, t=t)
        with full_precision(z):
            z = F.normalize(widen(z), dim=1)
            t, queue = (F.normalize(x.detach().to(z.dtype), dim=1) for x in (t, queue))
            target = (t @ queue.T / self.teacher_temperature).softmax(1)  # (B, K)
            return -(target * (z @ queue.T / self.temperature).log_softmax(1)).sum(1).mean()
