"""Predictive coding's InfoNCE: which of all the candidates is the one that comes next?

van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", equation 4,
https://arxiv.org/abs/1807.03748
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather, rank
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen

Negatives = Literal["all", "batch", "item", "both"]
NEGATIVES: tuple[Negatives, ...] = get_args(Negatives)


class CPCLoss(nn.Module):
    """Cross-entropy of each prediction to its own target among others of the global batch; plain dot products.

    With S places in each of B items, a prediction has as negatives

    - "all": all other places of the same item, and all places of the other items; B S - 1,
    - "batch": the same place of the other items; B - 1,
    - "item": the other places of the same item; S - 1. What an item's places share (a voice, a room) tells nothing,
    - "both": those of "batch" and of "item"; B + S - 2. Of long sequences "all" would fill the memory.

    Args:
        temperature: scores are divided by it; 1 in the paper.
        negatives: one of these four.
    """

    by_item = True  # takes (B, S, D)

    def __init__(self, temperature: float = 1.0, negatives: Negatives = "all") -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}; it must be above 0 (1 is CPC's)")
        if negatives not in NEGATIVES:
            raise UserError(f"negatives={negatives} is unknown; use {', '.join(NEGATIVES)}")
        self.temperature, self.negatives = temperature, negatives

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Both (B, S, D), place s of item i of one belongs to the same of the other -> scalar. With "all" also (R, D).

        Raises ValueError for other shapes.
        """
        if predictions.shape != targets.shape or predictions.ndim not in (2, 3):
            raise ValueError(f"expected equal shapes, got {tuple(predictions.shape)} and {tuple(targets.shape)}")
        if self.negatives != "all" and predictions.ndim != 3:
            raise ValueError(f"negatives={self.negatives} takes (B, S, D), not {tuple(predictions.shape)}")
        with full_precision(predictions):
            p, z = widen(predictions), widen(targets)
            scores, own = self._of_all(p, z) if self.negatives == "all" else self._of_some(p, z)
            return F.cross_entropy(scores / self.temperature, own)

    @staticmethod
    def _of_all(p: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, RW), and the column of each row's own target (R,)."""
        p, z = p.reshape(-1, p.shape[-1]), z.reshape(-1, z.shape[-1])
        return p @ gather(z).T, torch.arange(len(p), device=p.device) + rank() * len(p)

    def _of_some(self, p: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B S, BW), (B S, S) or (B S, BW + S), and the column of each row's own target (B S,)."""
        items, places = p.shape[:2]
        item = torch.arange(items, device=p.device)[:, None].expand(items, places) + rank() * items
        place = torch.arange(places, device=p.device).expand(items, places)
        within = p @ z.transpose(1, 2)  # (B, S, S)
        if self.negatives == "item":
            return within.flatten(0, 1), place.flatten()
        across = torch.einsum("bsd,csd->bsc", p, gather(z))  # (B, S, BW)
        if self.negatives == "both":  # its own place stands among the items already
            own = torch.eye(places, dtype=torch.bool, device=p.device)
            across = torch.cat([across, within.masked_fill(own, float("-inf"))], 2)
        return across.flatten(0, 1), item.flatten()
