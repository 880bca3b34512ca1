"""Swapped prediction: eq. 1 and 2 of Caron et al. 2020 (SwAV), https://arxiv.org/abs/2006.09882."""

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_lightning.core.forms import check_contrastive, full_precision, widen


class SwAVLoss(nn.Module):
    """Every view predicts the code of each global view but its own; the mean over all such pairs.

    Samples do not meet here (they do in the codes): DDP's average over ranks is already that of the global batch.

    Args:
        temperature: t > 0 of the prediction; 0.1 in the paper.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_contrastive(temperature)
        self.temperature = temperature

    def forward(self, scores: Sequence[Tensor], codes: Sequence[Tensor]) -> Tensor:
        """V scores (B, K) of the views and G codes (B, K) of the first G of them -> scalar."""
        with full_precision(scores[0]):
            log_p = [(widen(s) / self.temperature).log_softmax(1) for s in scores]
            losses = [
                -(code.detach() * log_p[v]).sum(1).mean()
                for g, code in enumerate(codes)
                for v in range(len(scores))
                if v != g
            ]
            return sum(losses[1:], losses[0]) / len(losses)
