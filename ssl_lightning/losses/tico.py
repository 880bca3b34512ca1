"""Transformation invariance and covariance contrast: Zhu et al. 2022 (TiCo), https://arxiv.org/abs/2206.10698."""

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather
from ssl_lightning.core.forms import full_precision, same_shape, widen


class TiCoLoss(nn.Module):
    """A projection follows the teacher's and avoids the directions that past projections have used most (algorithm 1).

    Args:
        beta: share of the old covariance in the new one; 0.9 in the paper.
        rho: weight of the covariance term; 8 in the paper.
    """

    def __init__(self, beta: float = 0.9, rho: float = 8.0) -> None:
        super().__init__()
        self.beta, self.rho = beta, rho

    def forward(self, z: Tensor, t: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """z, t (B, P) of any length and the covariance so far (P, P) -> scalar, the new covariance without gradient.

        The new covariance holds this batch (of all ranks), and the gradient passes through that part of it.
        """
        same_shape(z=z, t=t)
        with full_precision(z):
            z, t = F.normalize(widen(z), dim=1), F.normalize(widen(t.detach()), dim=1)
            everyone = gather(z)  # (BW, P)
            new = self.beta * covariance.to(z.dtype) + (1 - self.beta) * everyone.T @ everyone / len(everyone)
            agreement = 1 - (z * t).sum(1).mean()
            contrast = (everyone @ new * everyone).sum(1).mean()
            return agreement + self.rho * contrast, new.detach()
