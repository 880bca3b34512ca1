"""Predictive coding's InfoNCE: which of all the things in the batch is the one that comes next?

van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", equation 4,
https://arxiv.org/abs/1807.03748
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather, rank
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, same_shape, widen


class CPCLoss(nn.Module):
    """Cross-entropy of each prediction to its own target among the targets of the global batch; plain dot products.

    Negatives are all other rows: other places of the same image, and all places of other images.

    Args:
        temperature: scores are divided by it; 1 in the paper.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}; it must be above 0 (1 is CPC's)")
        self.temperature = temperature

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Both (R, D), row i of one belongs to row i of the other -> scalar."""
        same_shape(predictions=predictions, targets=targets)
        with full_precision(predictions):
            scores = widen(predictions) @ gather(widen(targets)).T / self.temperature  # (R, RW)
            own = torch.arange(len(scores), device=scores.device) + rank() * len(scores)
            return F.cross_entropy(scores, own)
