"""iBOT's second loss: what the student says of a hidden patch follows what the teacher says, who sees it.

Zhou et al. 2022, "iBOT: Image BERT Pre-Training with Online Tokenizer", equation 2, https://arxiv.org/abs/2111.07832
"""

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen


class MaskedPatchLoss(nn.Module):
    """The mean over images of the mean cross-entropy of their hidden patches; an image without any counts as zero.

    The paper's equation sums over an image's patches; its code and DINOv2's take the mean, as here.

    Args:
        temperature: of the student.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}; it must be above 0 (0.1 is iBOT's)")
        self.temperature = temperature

    def forward(self, scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Scores and targets (R, K) of the R patches where mask (B, N) is True, in its order -> scalar."""
        with full_precision(scores):
            entropies = -(targets * torch.log_softmax(widen(scores) / self.temperature, 1)).sum(1)  # (R,)
            per_image = mask.sum(1, keepdim=True).clamp_min(1).expand_as(mask)[mask]  # (R,)
            return (entropies / per_image).sum() / len(mask)
