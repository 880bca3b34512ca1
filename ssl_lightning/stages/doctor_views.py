"""What `stage=doctor` says of the views: whether they destroy what the labels need, and by which of their keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lightning.core.distributed import world_size
from ssl_lightning.core.finding import Finding
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation.features import evaluating, extract
from ssl_lightning.methods.base import SSLMethod

ITEMS, NEIGHBOURS = 512, 5
TOLD = 0.1  # above chance that features must tell the classes of items as they are
LOST, BACK = 0.5, 0.05  # of that, what is lost before a warning; what one key must give back to be named


def look(method: SSLMethod, data: DataModule, seconds: float, trained: bool = False) -> list[Finding]:
    """kNN of drawn views against the other items as they are, on some hundred labelled training items.

    Each key of the views is then switched off in turn, as long as `seconds` last.

    Args:
        trained: the network has the weights of a `ckpt`, and not random ones.
    """
    items = data.probe_set
    if world_size() > 1 or data.views is None or items is not data.train_set or items.targets is not None:
        return []
    if not bool((items.labels >= 0).any()):
        return []
    end = time.perf_counter() + seconds
    found = _drawn(method, data, data.views)
    if found is None:
        return []
    rows, labels, views = found
    bank = extract(method.embed, data.eval_loader("train", rows.sort().values)).x[rows.argsort().argsort()]
    chance = float(labels.bincount().max()) / len(labels)
    clean, shown = _accuracy(bank, bank, labels), _accuracy(views, bank, labels)
    known: dict[str, float] = {}
    for key, other in data.views.without().items():
        if time.perf_counter() > end:
            break
        again = _drawn(method, data, other)
        if again is not None and torch.equal(again[0], rows):
            known[key] = _accuracy(again[2], bank, labels)
    data.teardown("predict")
    source = "the given weights" if trained else "random weights"
    return list(_said(data.noun, source, chance, clean, shown, known))


def _drawn(method: SSLMethod, data: DataModule, views: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """(rows, labels, features of the first view) of the first items of a training; None where there are too few."""
    other = data.drawing(views)
    rows, labels, x = [], [], []
    with evaluating(method), torch.no_grad():
        for raw in other.train_dataloader():
            batch = other.on_after_batch_transfer(raw)
            rows.append(batch.indices)
            labels.append(batch.labels)
            x.append(method.embed(batch.global_views[0]).float())
            if sum(map(len, rows)) >= ITEMS:
                break
    other.teardown("predict")
    if not rows:
        return None
    kept = torch.cat(labels) >= 0
    found = torch.cat(rows)[kept], torch.cat(labels)[kept], torch.cat(x)[kept]
    return tuple(part[:ITEMS] for part in found) if int(kept.sum()) > 4 * NEIGHBOURS else None  # type: ignore[return-value]


def _accuracy(queries: Tensor, bank: Tensor, labels: Tensor) -> float:
    """How often the nearest items of a query (N, D), itself left out, have its class."""
    bank, mean = bank - bank.mean(0), bank.mean(0)
    cosines = F.normalize(queries - mean, dim=1) @ F.normalize(bank, dim=1).T
    cosines.fill_diagonal_(-2)
    weights, nearest = cosines.topk(NEIGHBOURS, dim=1)
    votes = torch.zeros(len(queries), int(labels.max()) + 1).scatter_add_(1, labels[nearest], (weights / 0.1).exp())
    return float((votes.argmax(1) == labels).double().mean())


def _said(
    noun: str, source: str, chance: float, clean: float, shown: float, known: dict[str, float]
) -> Iterator[Finding]:
    told = f"({NEIGHBOURS} nearest neighbours, features of {source})"
    if clean - chance < TOLD:
        what = f"whether views keep what labels need cannot be told: {noun}s as they are have {clean:.0%} right {told}"
        yield Finding("views", "ok", what)
        return
    what = f"with these views {1 - shown:.0%} of the {noun}s lie nearest to another class, as they are {1 - clean:.0%}"
    lost = (clean - shown) / (clean - chance)
    worst = max(known, key=lambda key: known[key], default=None)
    if lost < LOST:
        yield Finding("views", "ok", f"{what} {told}")
    elif worst is not None and known[worst] - shown > BACK:
        fix = f"turn {worst} down, unless the classes do not depend on it: views.strength=0.5 turns all down"
        yield Finding("views", "watch", f"{what}; {worst} hurts most, without it {1 - known[worst]:.0%} {told}", fix)
    else:
        yield Finding("views", "watch", f"{what}, and no single key is the reason {told}", "views.strength=0.5")
