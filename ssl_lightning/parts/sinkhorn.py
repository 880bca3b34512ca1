"""Sinkhorn-Knopp: equal shares of the batch for every prototype. SwAV's appendix A, https://arxiv.org/abs/2006.09882."""

import torch
from torch import Tensor

from ssl_lightning.core.distributed import reduce
from ssl_lightning.core.forms import full_precision, widen


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft codes of scores (B, K), of which the global batch gives each prototype the same sum: (B, K), rows sum to 1.

    Each rank passes its own rows, as many as it has, or none; the sums over prototypes are taken over all ranks.
    """
    with full_precision(scores):
        q = widen(scores.detach()) / epsilon
        largest = q.max() if len(q) else q.new_tensor(-torch.inf)
        q = (q - reduce(largest, "max")).exp()  # (B, K); a common factor does not matter
        for _ in range(iterations):
            q = q / reduce(q.sum(0))  # every prototype the same
            q = q / q.sum(1, keepdim=True)  # every sample the same
        return q
