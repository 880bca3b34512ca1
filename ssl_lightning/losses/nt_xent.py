"""NT-Xent, the loss of SimCLR: eq. 1 of Chen et al. 2020, https://arxiv.org/abs/2002.05709."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather, rank, world_size
from ssl_lightning.core.forms import Form, check_contrastive, full_precision, same_shape, widen
from ssl_lightning.parts.streamed import logsumexp_pairs, logsumexp_rows, pairs_underflow


class NTXent(nn.Module):
    """Each view picks its partner out of the 2N - 1 other views of the global batch; the mean over all 2N anchors.

    Args:
        temperature: t > 0; the paper has 0.5 on CIFAR-10 and 0.1 on ImageNet.
        form: "matrix" holds every similarity, as the equation is written; "streamed" gives the same value and gradient
            block by block, faster and in memory that grows with N and not with its square.

    Under DDP each rank scores its own anchors against the views of all ranks. The mean of the ranks' losses, and the
    gradient that DDP averages, are then those of one process on the global batch.

    >>> z = torch.ones(4, 8)
    >>> NTXent()(z, z)  # nothing to tell apart, one of 2N - 1 by chance: log(7)
    tensor(1.9459)
    """

    def __init__(self, temperature: float = 0.2, form: Form = "streamed") -> None:
        super().__init__()
        check_contrastive(temperature, form)
        self.temperature = temperature
        self.form = form

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """z1, z2 (B, P) of any length, row i of both from the same image -> scalar, float32, or float64 if z1 is."""
        same_shape(z1=z1, z2=z2)
        with full_precision(z1):
            z = F.normalize(widen(torch.cat([z1, z2])), dim=1)  # (2B, P)
            return self.matrix(z) if self.form == "matrix" else self.streamed(z)

    def matrix(self, z: Tensor) -> Tensor:
        own = torch.arange(len(z), device=z.device) + rank() * len(z)  # where this rank's views stand among all
        logits = z @ gather(z).T / self.temperature  # (2B, 2BW)
        logits = logits.scatter(1, own[:, None], float("-inf"))
        return F.cross_entropy(logits, own.roll(len(z) // 2))

    def streamed(self, z: Tensor) -> Tensor:
        z1, z2 = z.chunk(2)
        positive = ((z1 * z2).sum(1).mean() - 1) / self.temperature  # both anchors of a pair share it
        if world_size() == 1 and not pairs_underflow(self.temperature, z.dtype):
            return logsumexp_pairs(z, self.temperature).mean() - positive
        return logsumexp_rows(z, gather(z), self.temperature, own=rank() * len(z)).mean() - positive
