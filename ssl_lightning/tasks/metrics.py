"""Metrics that torchmetrics has in float32 only: shares as exact quotients of counts."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Top(Metric):
    """The share of items whose class is among the k largest outputs, in 0..1, as a float64 quotient.

    Args:
        k: how many of the largest count; 1 takes the first of equal ones.
    """

    is_differentiable, higher_is_better, full_state_update = False, True, False
    correct: Tensor
    total: Tensor

    def __init__(self, k: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k
        for name in ("correct", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Outputs (B, K) and classes (B,) in 0..K-1."""
        best = outputs.argmax(dim=1, keepdim=True) if self.k == 1 else outputs.topk(self.k, dim=1).indices
        self.correct += (best == targets[:, None]).sum()
        self.total += len(targets)

    def compute(self) -> Tensor:
        return torch.tensor(self.correct.item() / max(self.total.item(), 1), dtype=torch.float64)
