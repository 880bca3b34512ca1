"""Sinkhorn-Knopp: equal shares of the batch for every prototype. SwAV's appendix A, https://arxiv.org/abs/2006.09882."""

import torch
import torch.distributed as dist
from torch import Tensor

from ssl_lightning.distributed import is_active
from ssl_lightning.losses.forms import full_precision, widen


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft codes of scores (B, K), of which the global batch gives each prototype the same sum: (B, K), rows sum to 1.

    Each rank passes its own rows; the sums over prototypes are taken over all ranks.
    """
    with full_precision(scores):
        q = widen(scores.detach()) / epsilon
        q = (q - _reduce(q.max(), dist.ReduceOp.MAX)).exp()  # (B, K); a common factor does not matter
        for _ in range(iterations):
            q = q / _reduce(q.sum(0), dist.ReduceOp.SUM)  # every prototype the same
            q = q / q.sum(1, keepdim=True)  # every sample the same
        return q


def _reduce(x: Tensor, op: dist.ReduceOp.RedOpType) -> Tensor:
    """Over all ranks."""
    if is_active():
        dist.all_reduce(x, op)
    return x
