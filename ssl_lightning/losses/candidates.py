"""Positives and negatives of a contrastive loss, in either form in which methods hand over their vectors."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather, rank
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import check_contrastive, full_precision, same_shape, widen


class Candidates(NamedTuple):
    """Cosines of M anchors.

    Args:
        positive: (M,), with the anchor's own positive.
        negatives: (M, N), with its negatives; neither itself nor its positive is among them.
        pairs: (M*W,), `positive` of the anchors of all ranks.
    """

    positive: Tensor
    negatives: Tensor
    pairs: Tensor


class CandidateLoss(nn.Module):
    """Base of losses that score each anchor's positive against its negatives; a subclass writes `score`.

    Called with two batches, as SimCLR does, all 2B views of the batch are anchors, and the views of all other images
    are the negatives. Called with a third argument, as MoCo does, the queries are the anchors, and the rows of the
    queue (or, where it is None, the keys of all other images) are the negatives. Under DDP each rank scores its own
    anchors against the candidates of all ranks.

    Args:
        temperature: t > 0.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        check_contrastive(temperature)
        self.temperature = temperature

    def forward(self, z1: Tensor, z2: Tensor, *queue: Tensor | None) -> Tensor:
        """z1, z2 (B, P) of any length, row i of both from the same image, and a queue (K, P) or None -> scalar."""
        same_shape(z1=z1, z2=z2)
        if any(rows is not None and rows.ndim != 2 for rows in queue):
            name = type(self).__name__
            raise UserError(f"{name} takes a queue of vectors and no labels; choose another method/loss=")
        with full_precision(z1):
            z1 = F.normalize(widen(z1), dim=1)
            z2 = F.normalize(z2.to(z1.dtype), dim=1)
            found = of_queries(z1, z2, *queue) if queue else of_views(z1, z2)
            if not found.negatives.shape[1]:
                raise UserError("a contrastive loss needs negatives; use a data.batch_size of 2 or more")
            return self.score(found)

    def score(self, found: Candidates) -> Tensor:
        raise NotImplementedError


def of_views(z1: Tensor, z2: Tensor) -> Candidates:
    """Unit rows (B, P), (B, P): 2B anchors with 2BW - 2 negatives each."""
    z = torch.cat([z1, z2])  # (2B, P)
    own = torch.arange(len(z), device=z.device) + rank() * len(z)  # where this rank's views stand among all
    partner = own.roll(len(z1))
    cosines = z @ gather(z).T  # (2B, 2BW)
    positive = cosines.gather(1, partner[:, None]).squeeze(1)
    return Candidates(positive, _without(cosines, own, partner), gather(positive))


def of_queries(q: Tensor, k: Tensor, queue: Tensor | None) -> Candidates:
    """Unit rows (B, P), (B, P): B anchors, whose negatives are the queue (K, P) or the other keys of all ranks."""
    positive = (q * k).sum(1)  # (B,)
    if queue is not None:
        return Candidates(positive, q @ F.normalize(queue.to(q.dtype), dim=1).T, gather(positive))
    own = torch.arange(len(q), device=q.device) + rank() * len(q)
    return Candidates(positive, _without(q @ gather(k).T, own), gather(positive))


def _without(cosines: Tensor, *columns: Tensor) -> Tensor:
    """(M, N) without one column per row for each of `columns` (M,)."""
    keep = torch.ones_like(cosines, dtype=torch.bool)
    for column in columns:
        keep.scatter_(1, column[:, None], False)
    return cosines[keep].view(len(cosines), -1)
