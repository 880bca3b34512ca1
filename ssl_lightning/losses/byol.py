"""The loss of BYOL: eq. 2 of Grill et al. 2020, https://arxiv.org/abs/2006.07733."""

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.forms import full_precision, same_shape, widen


class BYOLLoss(nn.Module):
    """2 - 2 cos(prediction, teacher's projection), the squared distance of the two unit vectors; the mean over samples.

    Samples do not meet, so nothing is gathered: DDP's average over ranks is already that of the global batch.

    >>> import torch
    >>> p = torch.tensor([[1.0, 0.0]])
    >>> [BYOLLoss()(p, t * p).item() for t in (3, -3)]
    [0.0, 4.0]
    """

    def forward(self, p: Tensor, t: Tensor) -> Tensor:
        """p, t (B, P) of any length -> scalar in [0, 4]; no gradient goes to t."""
        same_shape(p=p, t=t)
        with full_precision(p):
            return 2 - 2 * F.cosine_similarity(widen(p), widen(t.detach()), dim=1).mean()
