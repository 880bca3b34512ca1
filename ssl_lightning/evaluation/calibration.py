"""How far a classifier's probabilities can be trusted, and which classes it takes for which; counted batch by batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

BINS = 15


class Calibration:
    """Counts of predictions with labels, of any number of them in little memory.

    Attributes:
        bins: float64 (15, 3), of each bin of confidence, (b / 15, (b + 1) / 15], the number of items, the sum of their
            confidences, and how many were right.
        pairs: {(class, predicted class): items}.

    >>> found = Calibration()
    >>> found.update(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
    >>> round(found.ece, 2), round(found.brier, 2)
    (0.45, 0.65)
    """

    def __init__(self) -> None:
        self.bins = torch.zeros(BINS, 3, dtype=torch.float64)
        self.pairs: Counter[tuple[int, int]] = Counter()
        self.count, self._squares = 0, 0.0

    def update(self, probabilities: Tensor, labels: Tensor, predicted: Tensor | None = None) -> None:
        """Add items.

        Args:
            probabilities: (B, K), each row sums to 1.
            labels: (B,) int64 in 0..K-1.
            predicted: (B,) the classes that were said; None: the likeliest ones.
        """
        shares = probabilities.double()
        best = shares.argmax(dim=1) if predicted is None else predicted
        confidence = shares.gather(1, best[:, None])[:, 0]  # (B,)
        place = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
        columns = (torch.ones_like(confidence), confidence, (best == labels).double())
        self.bins.index_add_(0, place, torch.stack(columns, dim=1))
        target = torch.zeros_like(shares).scatter_(1, labels[:, None], 1.0)
        self._squares += float((shares - target).square().sum())
        self.pairs.update(zip(labels.tolist(), best.tolist(), strict=True))
        self.count += len(labels)

    @property
    def ece(self) -> float:
        """Expected calibration error in 0..1: the mean distance of confidence and accuracy over 15 equal-width bins.

        Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3. NaN without items.
        """
        if not self.count:
            return float("nan")
        return float((self.bins[:, 1] - self.bins[:, 2]).abs().sum() / self.count)

    @property
    def brier(self) -> float:
        """Mean squared distance of probabilities from the one-hot class, in 0..2 (Brier 1950). NaN without items."""
        return self._squares / self.count if self.count else float("nan")

    def by_class(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """{class: its number of items, precision, recall} of the classes that items have or were taken for.

        Precision is None of a class that was never said, recall of one that no item has.
        """
        items, said, right = Counter[int](), Counter[int](), Counter[int]()
        for (label, best), count in self.pairs.items():
            items[label] += count
            said[best] += count
            right[label] += count if label == best else 0
        return {
            names[k]: {
                "items": items[k],
                "precision": right[k] / said[k] if said[k] else None,
                "recall": right[k] / items[k] if items[k] else None,
            }
            for k in sorted({*items, *said})
        }
