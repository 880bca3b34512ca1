"""Weighted cosine kNN, the protocol of Wu et al. 2018 (https://arxiv.org/abs/1805.01978), section 3.4.

Each of a query's k nearest bank rows votes for its own class with weight exp(cosine / T).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.retrieval import QUERIES, search

SIMILARITIES_AT_ONCE = 2**24  # 64 MB in float32
COPIED = 2**28  # values of a bank (1 GB) up to which a normalised copy is made; a larger one is read in blocks


@torch.no_grad()
def knn_scores(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    num_classes: int | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The share of the votes that each class gets: (Q, C), rows sum to 1.

    The similarities of `chunk` queries with the whole bank are held at a time, never all of them.

    Args:
        bank: (N, D), any scale: rows are normalised here. On the device, and in the type, to compute in.
        bank_labels: (N,) int64 in 0..C-1.
        queries: (Q, D).
        num_classes: C; the largest label + 1 when None.
        chunk: queries at a time; when None as many as make 2**24 similarities.

    Raises:
        UserError: k below 1 or above N, a temperature that is not positive, or a label below 0.
    """
    _check(bank, k, temperature)
    if bank_labels.min() < 0:
        raise UserError("the kNN bank holds images without a label; leave them out")
    classes = num_classes or int(bank_labels.max()) + 1
    scores = queries.new_zeros(len(queries), classes)
    for rows, nearest, weights in _neighbours(bank, queries, k, temperature, chunk):
        scores[rows].scatter_add_(1, bank_labels[nearest], weights)
    return scores


@torch.no_grad()
def knn_average(
    bank: Tensor, targets: Tensor, queries: Tensor, k: int = 20, temperature: float = 0.07, chunk: int | None = None
) -> Tensor:
    """The mean target of a query's neighbours, each with its weight of the vote: targets (N, T) -> (Q, T)."""
    _check(bank, k, temperature)
    means = targets.new_zeros(len(queries), targets.shape[1])
    for rows, nearest, weights in _neighbours(bank, queries, k, temperature, chunk):
        means[rows] = (weights[:, :, None].to(targets.dtype) * targets[nearest]).sum(dim=1)  # (chunk, k, T)
    return means


def _check(bank: Tensor, k: int, temperature: float) -> None:
    if not 1 <= k <= len(bank):
        raise UserError(
            f"kNN with k={k} needs a bank of at least {max(k, 1)} images and k >= 1, not {len(bank)} images"
        )
    if temperature <= 0:
        raise UserError(f"kNN needs a temperature above 0, not {temperature}")


def _neighbours(
    bank: Tensor, queries: Tensor, k: int, temperature: float, chunk: int | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For some queries at a time: which they are, their nearest rows (B, k), and the weights of these, sums of 1."""
    if bank.numel() > COPIED:
        cosines, rows = search(queries, bank, k, device=queries.device)  # once: faiss begins with a copy of the bank
        for first in range(0, len(queries), QUERIES):
            some = slice(first, first + QUERIES)
            weights = (cosines[some].to(queries) / temperature).softmax(dim=1)
            yield some, rows[some].to(queries.device), weights
        return
    chunk = chunk or max(1, SIMILARITIES_AT_ONCE // len(bank))
    columns = F.normalize(bank, dim=1).T  # (D, N)
    buffer = queries.new_empty(min(chunk, len(queries)), len(bank))  # one for all chunks: new memory costs a tenth more
    start = 0
    for rows in F.normalize(queries, dim=1).split(chunk):
        similarity, nearest = torch.mm(rows, columns, out=buffer[: len(rows)]).topk(k, dim=1)  # (chunk, k)
        # exp(s / T) up to a factor per query, without overflow
        yield slice(start, start + len(rows)), nearest, (similarity / temperature).softmax(dim=1)
        start += len(rows)


def knn_predict(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int | None = None,
) -> Tensor:
    """The class of each query: (Q,) int64. Of classes with equal votes the first is taken."""
    return knn_scores(bank, bank_labels, queries, k, temperature, chunk=chunk).argmax(dim=1)


def knn_top1(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int | None = None,
) -> float:
    """The share of queries whose class is found, in 0..1."""
    predicted = knn_predict(bank, bank_labels, queries, k, temperature, chunk)
    return (predicted == query_labels).sum().item() / len(query_labels)
