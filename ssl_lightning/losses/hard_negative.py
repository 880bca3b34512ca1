"""Contrastive learning with hard negatives: section 3 of Robinson et al. 2021, https://arxiv.org/abs/2010.04592."""

import math

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.candidates import CandidateLoss, Candidates


class HardNegative(CandidateLoss):
    """Negatives count the more the closer they are, less what of them is expected to be of the anchor's own class.

    With N negatives s_j and the positive s, the sum over negatives of NT-Xent is replaced by N times

        (E_w[exp(s_j / t)] - tau_plus exp(s / t)) / (1 - tau_plus), never below exp(-1 / t),

    with weights w_j in proportion to exp(beta s_j / t). beta = 0 and tau_plus = 0 are NT-Xent itself.

    Args:
        temperature: t > 0; 0.5 in the paper.
        beta: concentration, >= 0; 0.5 to 2 in the paper.
        tau_plus: share of each class among the images, in [0, 1); 0.1 for ten classes alike.
    """

    def __init__(self, temperature: float = 0.5, beta: float = 1.0, tau_plus: float = 0.1) -> None:
        super().__init__(temperature)
        if beta < 0 or not 0 <= tau_plus < 1:
            raise UserError(f"beta={beta} must be 0 or more, and tau_plus={tau_plus} in [0, 1)")
        self.beta, self.tau_plus = beta, tau_plus

    def score(self, found: Candidates) -> Tensor:
        # All of (s - 1) / t, which is never above 0: nothing overflows at small temperatures.
        positive, negatives = (found.positive - 1) / self.temperature, (found.negatives - 1) / self.temperature
        count = negatives.shape[1]
        hard = ((self.beta + 1) * negatives).logsumexp(1) - (self.beta * negatives).logsumexp(1)  # log E_w
        debiased = (hard.exp() - self.tau_plus * positive.exp()) / (1 - self.tau_plus)  # (M,)
        lowest = math.exp(-2 / self.temperature)
        total = positive.exp() + count * debiased.clamp(min=max(lowest, torch.finfo(debiased.dtype).tiny))
        return (total.log() - positive).mean()
