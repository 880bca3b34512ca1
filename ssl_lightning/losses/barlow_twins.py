"""Redundancy reduction: eq. 1 of Zbontar et al. 2021 (Barlow Twins), https://arxiv.org/abs/2103.03230."""

import torch
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather
from ssl_lightning.core.forms import full_precision, same_shape, widen


class BarlowTwinsLoss(nn.Module):
    """The cross-correlation of two views' embeddings goes to the identity. Statistics are those of the global batch.

    Args:
        redundancy: lambda, weight of the off-diagonal; 0.0051 in the paper.
        scale: of the whole loss; 0.1 in the CIFAR recipe, 0.024 in the authors' ImageNet code.
        eps: under the root of the variance, as in BatchNorm.
    """

    def __init__(self, redundancy: float = 0.0051, scale: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.redundancy, self.scale, self.eps = redundancy, scale, eps

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """z1, z2 (B, P) -> scalar."""
        same_shape(z1=z1, z2=z2)
        with full_precision(z1):
            z1, z2 = (self.standardise(gather(widen(z))) for z in (z1, z2))  # (BW, P)
            correlation = z1.T @ z2 / len(z1)  # (P, P)
            diagonal = correlation.diagonal()
            off_diagonal = correlation.square().sum() - diagonal.square().sum()
            return self.scale * ((1 - diagonal).square().sum() + self.redundancy * off_diagonal)

    def standardise(self, z: Tensor) -> Tensor:
        z = z - z.mean(0)
        return z * torch.rsqrt(z.square().mean(0) + self.eps)
