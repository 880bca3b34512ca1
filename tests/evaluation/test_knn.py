"""kNN against a float64 loop over one query at a time."""

import math

import pytest
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation import knn, retrieval
from ssl_lightning.evaluation.knn import knn_predict, knn_scores, knn_top1


def naive_scores(bank: Tensor, labels: Tensor, queries: Tensor, k: int, temperature: float, classes: int) -> Tensor:
    """Votes exp(cosine / T) of the k nearest, one query and one bank row at a time."""
    table = []
    for q in queries.double().tolist():
        found = []
        for row, label in zip(bank.double().tolist(), labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(q, row, strict=True))
            norms = math.sqrt(sum(a * a for a in q)) * math.sqrt(sum(b * b for b in row))
            found.append((dot / norms, label))
        found.sort(reverse=True)
        votes = [0.0] * classes
        for similarity, label in found[:k]:
            votes[label] += math.exp(similarity / temperature)
        table.append([v / sum(votes) for v in votes])
    return torch.tensor(table, dtype=torch.float64)


@pytest.mark.parametrize(("k", "temperature", "chunk"), [(1, 0.07, None), (5, 0.07, 7), (20, 0.5, 1), (40, 0.1, 100)])
def test_scores_and_top1_equal_the_naive_loop(k: int, temperature: float, chunk: int | None) -> None:
    bank = torch.randn(40, 6, dtype=torch.float64) * torch.rand(40, 1) * 9
    queries = torch.randn(23, 6, dtype=torch.float64)
    labels, query_labels = torch.arange(40) % 4, torch.arange(23) % 4
    expected = naive_scores(bank, labels, queries, k, temperature, 4)
    scores = knn_scores(bank, labels, queries, k, temperature, chunk=chunk)
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-12)
    single = knn_scores(bank.float(), labels, queries.float(), k, temperature, chunk=chunk)
    torch.testing.assert_close(single, expected.float(), rtol=1e-3, atol=1e-5)
    top1 = (expected.argmax(1) == query_labels).double().mean().item()
    assert knn_top1(bank, labels, queries, query_labels, k, temperature, chunk) == top1


def test_cosine_not_euclid() -> None:
    bank, labels = torch.tensor([[10.0, 0.0], [0.5, 0.9]]), torch.tensor([0, 1])
    query = torch.tensor([[0.9, 0.5]])  # nearer to row 1 by distance, to row 0 by angle
    assert knn_predict(bank, labels, query, k=1).tolist() == [0]


def test_equal_votes_go_to_the_first_class_whatever_the_order_of_the_bank() -> None:
    bank = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
    query = torch.tensor([[0.0, 2.0]])
    for labels in ([2, 1, 0], [1, 2, 0]):
        assert knn_predict(bank, torch.tensor(labels), query, k=2).tolist() == [1]


def test_a_tiny_temperature_does_not_overflow() -> None:
    bank, labels = torch.randn(30, 4), torch.arange(30) % 3
    queries = torch.randn(9, 4)
    scores = knn_scores(bank, labels, queries, k=20, temperature=1e-4)
    assert scores.isfinite().all()
    assert torch.equal(scores.argmax(1), knn_predict(bank, labels, queries, k=1))


def test_num_classes_widens_the_scores() -> None:
    assert knn_scores(torch.randn(5, 3), torch.zeros(5).long(), torch.randn(2, 3), k=3, num_classes=7).shape == (2, 7)


@pytest.mark.parametrize(
    ("k", "temperature", "labels", "words"),
    [
        (6, 0.07, [0] * 5, "k=6 .* at least 6 images.* 5 images"),
        (0, 0.07, [0] * 5, "k=0"),
        (5, 0.0, [0] * 5, "temperature"),
        (5, 0.07, [0, 0, 0, 0, -1], "without a label"),
    ],
)
def test_mistakes(k: int, temperature: float, labels: list[int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        knn_predict(torch.randn(5, 3), torch.tensor(labels), torch.randn(2, 3), k, temperature)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_equals_cpu() -> None:
    bank, labels, queries = torch.randn(500, 16).double(), torch.randint(0, 5, (500,)), torch.randn(64, 16).double()
    expected = knn_scores(bank, labels, queries)
    torch.testing.assert_close(knn_scores(bank.cuda(), labels.cuda(), queries.cuda()).cpu(), expected)


def test_a_bank_too_large_to_copy_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    bank, queries = torch.randn(70, 6, generator=generator), torch.randn(30, 6, generator=generator)
    labels, targets = torch.arange(70) % 4, torch.randn(70, 2, generator=generator)
    plain = knn.knn_scores(bank, labels, queries, 9), knn.knn_average(bank, targets, queries, 9)
    monkeypatch.setattr(knn, "COPIED", 100)
    monkeypatch.setattr(knn, "QUERIES", 8)
    monkeypatch.setattr(retrieval, "ROWS", 16)
    searched: list[int] = []
    monkeypatch.setattr(knn, "search", lambda q, *a, **o: searched.append(len(q)) or retrieval.search(q, *a, **o))
    blocks = knn.knn_scores(bank, labels, queries, 9), knn.knn_average(bank, targets, queries, 9)
    for one, other in zip(plain, blocks, strict=True):
        torch.testing.assert_close(one, other)
    assert searched == [30, 30]  # each time the whole bank is read: not once for every few queries
