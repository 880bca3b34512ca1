"""Sketched isotropic Gaussian regularisation: section 4 of Balestriero & LeCun 2025 (LeJEPA),
https://arxiv.org/abs/2511.08544"""

import torch
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen


class SIGReg(nn.Module):
    """How far embeddings are from an isotropic Gaussian: the Epps-Pulley test along random directions, their mean.

    Along each direction N times the squared distance of the empirical characteristic function (of the global batch) to
    exp(-t^2 / 2), weighted by exp(-t^2 / 2), is integrated over t in [-limit, limit] by the trapezoid rule. The
    integrand is even in t, so half of it is computed. The defaults are those of the authors' code.

    Args:
        knots: points of the rule in [0, limit].
        limit: end of the integral.
    """

    def __init__(self, knots: int = 17, limit: float = 3.0) -> None:
        super().__init__()
        if knots < 2 or not limit > 0:
            raise UserError(f"knots={knots} must be 2 or more, and limit={limit} above 0")
        self.knots, self.limit = knots, limit

    def forward(self, z: Tensor, directions: Tensor) -> Tensor:
        """z (B, P) and unit directions (P, M), the same on every rank -> scalar."""
        with full_precision(z):
            z = gather(widen(z))  # (BW, P)
            t = torch.linspace(0, self.limit, self.knots, dtype=z.dtype, device=z.device)
            gaussian = (-t.square() / 2).exp()  # (T,), both the target and the weight
            phase = (z @ directions.to(z.dtype))[..., None] * t  # (BW, M, T)
            distance = (phase.cos().mean(0) - gaussian).square() + phase.sin().mean(0).square()  # (M, T)
            return 2 * len(z) * torch.trapezoid(distance * gaussian, t, dim=1).mean()
