"""Retrieval: the nearest items of an index by cosine, and how many of them are of the query's class.

Recall@k is the share of queries with an item of their class among the k nearest (Oh Song et al. 2016,
https://arxiv.org/abs/1511.06452, section 5). Precision@k is the share of the k nearest that are. mAP@k is the mean over
queries of 1 / min(R, k) * sum over ranks i <= k of precision@i where rank i is of the class, with R such items in the
index (Weyand et al. 2020, https://arxiv.org/abs/2004.01804, section 5.1).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lightning.core import progress
from ssl_lightning.core.errors import UserError

QUERIES, ROWS = 1024, 16_384  # whose similarities are held at a time: 64 MB
FAISS_FROM = 1_000_000  # rows of an index from which on faiss searches it, where it is installed
OUT = -2.0  # below every cosine


@torch.no_grad()
def search(
    queries: Tensor,
    index: Tensor,
    k: int,
    own: bool = False,
    device: torch.device | str = "cpu",
    faiss_from: int = FAISS_FROM,
) -> tuple[Tensor, Tensor]:
    """The k nearest rows of the index by cosine, exactly: (cosines (Q, k), rows (Q, k)), the nearest first.

    A product of `QUERIES` queries and `ROWS` rows is held at a time, and of an index that is mapped from a file no more
    rows than these. An index of `faiss_from` rows or more is searched by faiss' exact index where that is installed,
    which normalises a copy of it.

    Args:
        queries: (Q, D), any scale.
        index: (N, D).
        k: all of a smaller index.
        own: query i is row i of the index, which is left out of its neighbours.
        device: where products are computed.

    Raises:
        UserError: the index is empty, or holds the query alone.
    """
    k = min(k, len(index) - own)
    if k < 1:
        raise UserError("there is nothing to retrieve: the index needs an item besides the query")
    if len(index) >= faiss_from and importlib.util.find_spec("faiss") is not None:
        return _by_faiss(queries, index, k, own)
    cosines, rows = list[Tensor](), list[Tensor]()
    for start in progress.steps(range(0, len(queries), QUERIES), "retrieval"):
        some = F.normalize(queries[start : start + QUERIES].to(device), dim=1)
        best = some.new_full((len(some), k), OUT)
        found = torch.zeros(len(some), k, dtype=torch.int64, device=some.device)
        for first in range(0, len(index), ROWS):
            near = some @ F.normalize(index[first : first + ROWS].to(device), dim=1).T  # (QUERIES, ROWS)
            if own:
                _leave_out(near, start, first)
            top = near.topk(min(k, near.shape[1]), dim=1)
            both = torch.cat([best, top.values], 1)
            best, place = both.topk(k, dim=1)
            found = torch.cat([found, top.indices + first], 1).gather(1, place)
        cosines.append(best.cpu())
        rows.append(found.cpu())
    return torch.cat(cosines), torch.cat(rows)


def _leave_out(near: Tensor, start: int, first: int) -> None:
    """Give each query itself, at (i, i) of the whole product, the lowest cosine."""
    rows = torch.arange(len(near), device=near.device)
    places = rows + start - first
    inside = (places >= 0) & (places < near.shape[1])
    near[rows[inside], places[inside]] = OUT


def _by_faiss(queries: Tensor, index: Tensor, k: int, own: bool) -> tuple[Tensor, Tensor]:
    import faiss

    flat: Any = faiss.IndexFlatIP(index.shape[1])
    for start in range(0, len(index), ROWS):
        flat.add(F.normalize(index[start : start + ROWS].float(), dim=1).numpy())
    found = flat.search(F.normalize(queries.float(), dim=1).numpy(), k + own)
    cosines, rows = (torch.from_numpy(part) for part in found)
    if own:
        itself = rows == torch.arange(len(rows))[:, None]
        itself[~itself.any(1), -1] = True  # one of several equal ones has taken its place: the last goes
        cosines, rows = (part[~itself].view(len(part), k) for part in (cosines, rows))
    return cosines, rows


def relevant(query_labels: Tensor, index_labels: Tensor, rows: Tensor) -> Tensor:
    """(Q, k) bool: is a neighbour of the query's class, or, of several labels, does it share one?

    Labels: (Q,) and (N,) int64, -1 for none; or (Q, T) and (N, T) of 0 and 1, NaN in the rows of items without.
    """
    if index_labels.ndim == 1:
        return (query_labels[:, None] == index_labels[rows]) & (query_labels[:, None] >= 0)
    has, asked = index_labels > 0, query_labels > 0
    return torch.cat([
        (some[:, None] & has[near]).any(2) for some, near in zip(asked.split(QUERIES), rows.split(QUERIES), strict=True)
    ])  # fmt: skip


def relevant_counts(query_labels: Tensor, index_labels: Tensor, own: bool = False) -> Tensor:
    """(Q,) int64: how many items of the index are relevant to each query, itself left out."""
    if index_labels.ndim == 1:
        known = index_labels[index_labels >= 0]
        classes = int(max(int(query_labels.max()), int(known.max()) if len(known) else 0)) + 1
        counts = torch.bincount(known, minlength=max(classes, 1))[query_labels.clamp(min=0)]
        counts = torch.where(query_labels >= 0, counts, 0)
    else:
        counts = torch.zeros(len(query_labels), dtype=torch.int64, device=query_labels.device)
        for has in (index_labels > 0).split(ROWS):
            parts = [((q > 0).float() @ has.float().T > 0).sum(1) for q in query_labels.split(QUERIES)]
            counts += torch.cat(parts)
    mine = query_labels >= 0 if query_labels.ndim == 1 else (query_labels > 0).any(1)
    return counts - mine.long() if own else counts


def retrieval_scores(hits: Tensor, counts: Tensor) -> dict[str, float]:
    """The measures of queries that have something to find.

    Args:
        hits: (Q, k) bool, whether each neighbour is relevant, the nearest first.
        counts: (Q,) how many items of the index are.

    Returns:
        `top1` (recall@1), `recall` (recall@k), `precision` (precision@k) and `map` (mAP@k), shares; {} where no query
        has anything to find.
    """
    asked = counts > 0
    hits, counts = hits[asked].double(), counts[asked]
    if not len(hits):
        return {}
    k = hits.shape[1]
    ranks = torch.arange(1, k + 1, dtype=torch.float64)
    precision = hits.cumsum(1) / ranks  # (Q, k), at each rank
    average = (precision * hits).sum(1) / counts.clamp(max=k)
    return {
        "top1": hits[:, 0].mean().item(),
        "recall": hits.any(1).double().mean().item(),
        "precision": hits.mean().item(),
        "map": average.mean().item(),
    }
