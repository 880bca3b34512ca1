"""Supervised contrastive loss: eqs. 2 (L_out) and 3 (L_in) of Khosla et al. 2020, https://arxiv.org/abs/2004.11362."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather, gather_rows, rank
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import check_contrastive, full_precision, same_shape, widen


class SupConLoss(nn.Module):
    """NT-Xent in which all views of an anchor's class are its positives.

    Args:
        temperature: t > 0; 0.1 in the paper.
        form: "out" averages the logarithms of the positives' probabilities, the better form in the paper; "in" is the
            logarithm of their average. solo-learn takes the logarithm of their sum: other values of the loss than "in",
            the same gradients.

    >>> z = torch.ones(3, 2)
    >>> SupConLoss()(z, z, torch.zeros(3, dtype=torch.long))  # nothing to tell apart: log(5)
    tensor(1.6094)
    """

    def __init__(self, temperature: float = 0.1, form: Literal["out", "in"] = "out") -> None:
        super().__init__()
        check_contrastive(temperature)
        if form not in ("out", "in"):
            raise UserError(f"a supervised contrastive loss has no form={form}; use out or in")
        self.temperature, self.form = temperature, form

    def forward(self, z1: Tensor, z2: Tensor, labels: Tensor) -> Tensor:
        """z1, z2 (B, P) of any length, labels (B,) -> scalar. Label -1: the other view is the only positive."""
        same_shape(z1=z1, z2=z2)
        with full_precision(z1):
            z = F.normalize(widen(torch.cat([z1, z2])), dim=1)  # (2B, P)
            own = torch.arange(len(z), device=z.device) + rank() * len(z)
            logits = (z @ gather(z).T / self.temperature).scatter(1, own[:, None], float("-inf"))  # (2B, 2BW)
            log_p = logits.log_softmax(1)
            labels = labels.repeat(2)
            positive = (labels[:, None] == gather_rows(labels, equal=True)) & (labels >= 0)[:, None]
            positive = positive.scatter(1, own.roll(len(z1))[:, None], True).scatter(1, own[:, None], False)
            count = positive.sum(1).to(log_p.dtype)  # (2B,)
            if self.form == "in":
                return (count.log() - log_p.masked_fill(~positive, float("-inf")).logsumexp(1)).mean()
            return -(log_p.masked_fill(~positive, 0).sum(1) / count).mean()
