"""DINO's loss: the student's answer to each view follows the teacher's sharpened, centred answer to another view.

Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers", equations 1 to 3 and algorithm 1,
https://arxiv.org/abs/2104.14294
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen


class DINOLoss(nn.Module):
    """Mean over pairs of a global view u and another view v of H(target of u, softmax(student's scores of v / t)).

    Args:
        temperature: of the student.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}; it must be above 0 (0.1 is DINO's)")
        self.temperature = temperature

    def forward(self, scores: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Scores (B, K) of each view, global ones first; targets (B, K), rows that sum to 1, of the global ones."""
        with full_precision(scores[0]):
            logs = [torch.log_softmax(widen(s) / self.temperature, 1) for s in scores]
            pairs = [(u, v) for u in range(len(targets)) for v in range(len(logs)) if u != v]
            return torch.stack([-(targets[u] * logs[v]).sum(1).mean() for u, v in pairs]).mean()
