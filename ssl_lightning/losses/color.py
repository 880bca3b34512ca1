"""Colourisation's loss: cross-entropy to a soft code of the true colour, rare colours weigh more.

Zhang et al. 2016, "Colorful Image Colorization", equation 2, https://arxiv.org/abs/1603.08511
"""

import torch
from torch import Tensor, nn

from ssl_lightning.core.forms import full_precision, widen


class ColorLoss(nn.Module):
    """The mean over pixels of weight times cross-entropy (the paper's equation sums)."""

    def forward(self, scores: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
        """Scores and codes (R, Q), the codes' rows sum to 1, weights (R,) -> scalar."""
        with full_precision(scores):
            return -(weights * (codes * torch.log_softmax(widen(scores), 1)).sum(1)).mean()
