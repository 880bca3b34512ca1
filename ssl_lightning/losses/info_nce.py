"""InfoNCE as MoCo has it: eq. 1 of He et al. 2019, https://arxiv.org/abs/1911.05722, and without a queue as in MoCo v3,
algorithm 1 of Chen et al. 2021, https://arxiv.org/abs/2104.02057."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather, rank
from ssl_lightning.core.forms import Form, check_contrastive, full_precision, same_shape, widen
from ssl_lightning.parts.streamed import logsumexp_rows


class InfoNCE(nn.Module):
    """Each query picks its own key out of the negatives; the mean over queries.

    Args:
        temperature: t > 0; 0.07 in MoCo v1, 0.2 in v2 and v3.
        scaled: times 2 t, as MoCo v3 has it, so that the gradient does not grow as the temperature falls.
        form: "matrix" holds every similarity, as the equation is written; "streamed" gives the same value and gradient
            block by block and never holds (B, K).

    Under DDP each rank scores its own queries. The mean of the ranks' losses, and the gradient that DDP averages, are
    those of one process on the global batch, given that all ranks hold the same negatives.

    >>> q = k = torch.eye(2)
    >>> InfoNCE(temperature=1.0)(q, k, negatives=-torch.eye(2))  # log(1 + e^-2 + e^-1)
    tensor(0.4076)
    """

    def __init__(self, temperature: float = 0.2, form: Form = "streamed", scaled: bool = False) -> None:
        super().__init__()
        check_contrastive(temperature, form)
        self.temperature = temperature
        self.form = form
        self.scale = 2 * temperature if scaled else 1.0

    def forward(self, q: Tensor, k: Tensor, negatives: Tensor | None = None) -> Tensor:
        """q, k (B, P), row i of both from the same image, and negatives (K, P), all of any length -> scalar.

        With negatives None, the keys of all other images in the global batch are the negatives. The scalar is float32,
        or float64 if q is. Nothing is detached here: a MoCo passes keys and negatives that carry no gradient.
        """
        same_shape(q=q, k=k)
        with full_precision(q):
            q = F.normalize(widen(q), dim=1)
            k = F.normalize(k.to(q.dtype), dim=1)
            if negatives is None:
                return self.scale * self.score(q, gather(k), rank() * len(k))
            return self.scale * self.score_queue(q, k, F.normalize(negatives.to(q.dtype), dim=1))

    def score(self, q: Tensor, keys: Tensor, own: int) -> Tensor:
        """keys (BW, P) hold the positive of query i in row own + i."""
        if self.form == "matrix":
            return F.cross_entropy(q @ keys.T / self.temperature, torch.arange(len(q), device=q.device) + own)
        positive = (q * keys[own : own + len(q)]).sum(1)  # (B,)
        return (logsumexp_rows(q, keys, self.temperature) - (positive - 1) / self.temperature).mean()

    def score_queue(self, q: Tensor, k: Tensor, negatives: Tensor) -> Tensor:
        positive = (q * k).sum(1)  # (B,)
        if self.form == "matrix":
            logits = torch.cat([positive[:, None], q @ negatives.T], dim=1) / self.temperature  # (B, 1 + K)
            return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))
        others = logsumexp_rows(q, negatives, self.temperature)  # (B,)
        positive = (positive - 1) / self.temperature
        return -F.logsigmoid(positive - others).mean()  # e^p / (e^p + e^o)
