"""ECE, Brier score, confusions: against loops from the papers, and torchmetrics' own."""

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from ssl_lightning.evaluation.calibration import BINS, Calibration


def some(count: int = 500, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, classes, generator=generator)
    labels = torch.where(
        torch.rand(count, generator=generator) < 0.6, logits.argmax(1),
        torch.randint(classes, (count,), generator=generator),
    )  # fmt: skip
    return logits.double().softmax(1), labels


def naive(shares: Tensor, labels: Tensor) -> tuple[float, float]:
    """Guo et al. 2017, equations 2 and 3; Brier 1950: item by item."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    brier = 0.0
    for row, label in zip(shares.tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        m = next(m for m in range(BINS) if m / BINS < confidence <= (m + 1) / BINS)
        bins[m].append((confidence, row.index(confidence) == label))
        brier += sum((p - (k == label)) ** 2 for k, p in enumerate(row))
    ece = sum(
        len(b) / len(labels) * abs(sum(r for _, r in b) / len(b) - sum(c for c, _ in b) / len(b)) for b in bins if b
    )
    return ece, brier / len(labels)


def test_it_is_the_papers_loop_and_torchmetrics() -> None:
    shares, labels = some()
    found = Calibration()
    for rows in torch.arange(len(labels)).split(37):  # however it is cut into batches
        found.update(shares[rows], labels[rows])
    ece, brier = naive(shares, labels)
    assert found.ece == pytest.approx(ece, abs=1e-12)
    assert found.brier == pytest.approx(brier, abs=1e-12)
    theirs = multiclass_calibration_error(shares, labels, num_classes=4, n_bins=BINS, norm="l1")
    assert found.ece == pytest.approx(float(theirs), abs=1e-6)


def test_who_is_certain_and_right_has_none() -> None:
    found = Calibration()
    found.update(torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 2, 2]))
    assert (found.ece, found.brier) == (0.0, 0.0)
    found.update(torch.eye(3)[[0]], torch.tensor([1]))  # certain and wrong
    assert found.ece == pytest.approx(0.2)
    assert found.brier == pytest.approx(0.4)
    assert math.isnan(Calibration().ece)


def test_precision_and_recall_of_each_class() -> None:
    found = Calibration()
    found.update(torch.eye(4)[[0, 0, 1, 3]], torch.tensor([0, 1, 1, 0]))
    assert found.by_class(["a", "b", "c", "d"]) == {
        "a": {"items": 2, "precision": 0.5, "recall": 0.5},
        "b": {"items": 2, "precision": 1.0, "recall": 0.5},
        "d": {"items": 0, "precision": 0.0, "recall": None},
    }
