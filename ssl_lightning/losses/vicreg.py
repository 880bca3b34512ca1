"""Variance, invariance, covariance: eq. 1 to 6 of Bardes et al. 2022 (VICReg), https://arxiv.org/abs/2105.04906."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather
from ssl_lightning.core.forms import full_precision, same_shape, widen


class VICRegLoss(nn.Module):
    """Views agree, each dimension keeps a spread of 1, and dimensions do not repeat each other.

    Statistics are those of the global batch. As in the authors' code, the variance term is the mean of the two views'
    (the paper's equation has their sum), and the covariance term is their sum.

    Args:
        invariance, variance, covariance: the weights, 25, 25 and 1 in the paper.
        eps: under the root of the variance.
    """

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, eps: float = 1e-4
    ) -> None:
        super().__init__()
        self.invariance, self.variance, self.covariance, self.eps = invariance, variance, covariance, eps

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """z1, z2 (B, P), more than one row over all ranks -> scalar."""
        same_shape(z1=z1, z2=z2)
        with full_precision(z1):
            z1, z2 = gather(widen(z1)), gather(widen(z2))  # (BW, P)
            apart = F.mse_loss(z1, z2)
            (hinge1, redundancy1), (hinge2, redundancy2) = self.terms(z1), self.terms(z2)
            spread, redundancy = (hinge1 + hinge2) / 2, redundancy1 + redundancy2
            return self.invariance * apart + self.variance * spread + self.covariance * redundancy

    def terms(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(variance term, covariance term) of one view."""
        z = z - z.mean(0)
        covariance = z.T @ z / (len(z) - 1)  # (P, P)
        variances = covariance.diagonal()
        hinge = F.relu(1 - torch.sqrt(variances + self.eps)).mean()
        return hinge, (covariance.square().sum() - variances.square().sum()) / z.shape[1]
