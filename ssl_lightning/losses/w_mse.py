"""Whitening for self-supervised learning: section 3 of Ermolov et al. 2021 (W-MSE), https://arxiv.org/abs/2007.06346."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, same_shape, widen


class WMSELoss(nn.Module):
    """2 - 2 cos of two views after each has been whitened, which leaves no room for collapse.

    Each view is whitened by itself, in slices of `size` rows of the global batch; a batch is in random order already,
    so the slices are the paper's random sub-batches.

    Args:
        size: rows whitened together, more than P; at most the global batch, which it must divide. 128 on CIFAR.
        eps: share of the identity in the covariance; 0 in the paper.
    """

    def __init__(self, size: int = 128, eps: float = 0.0) -> None:
        super().__init__()
        if size < 2 or not 0 <= eps < 1:
            raise UserError(f"size={size} must be 2 or more, and eps={eps} in [0, 1)")
        self.size, self.eps = size, eps

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """z1, z2 (B, P) -> scalar in [0, 4]."""
        same_shape(z1=z1, z2=z2)
        with full_precision(z1):
            z1, z2 = (self.whiten(gather(widen(z))) for z in (z1, z2))  # (BW, P)
            return 2 - 2 * F.cosine_similarity(z1, z2, dim=1).mean()

    def whiten(self, z: Tensor) -> Tensor:
        """(N, P) with zero mean and the identity as covariance within each slice: x -> L^-1 (x - mean), L L^T = cov."""
        rows, dim = z.shape
        if rows % self.size or (self.size <= dim and not self.eps):
            raise UserError(
                f"W-MSE whitens slices of method.loss.size={self.size} rows: they must divide the global batch of "
                f"{rows} and be more than the {dim} dimensions of the projection; change one of the three"
            )
        z = z.view(-1, self.size, dim)
        z = z - z.mean(1, keepdim=True)
        covariance = z.transpose(1, 2) @ z / (self.size - 1)  # (slices, P, P)
        shrunk = (1 - self.eps) * covariance + self.eps * torch.eye(dim, dtype=z.dtype, device=z.device)
        # Where a covariance is singular the loss is nan, for which a run is stopped in words; the check of
        # `linalg.cholesky` would stop it with a traceback, and an accelerator at each step.
        lower, failed = torch.linalg.cholesky_ex(shrunk)
        lower = lower.masked_fill((failed > 0)[:, None, None], float("nan"))
        whitened = torch.linalg.solve_triangular(lower, z.transpose(1, 2), upper=False)
        return whitened.transpose(1, 2).reshape(rows, dim)
