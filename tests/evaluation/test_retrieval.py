"""Retrieval against a sort of all cosines, loops over queries, and torchmetrics."""

import pytest
import torch
from torch import Tensor
from torchmetrics.retrieval import RetrievalHitRate, RetrievalPrecision

from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation import retrieval
from ssl_lightning.evaluation.retrieval import relevant, relevant_counts, retrieval_scores, search


def rows(count: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def by_sorting(queries: Tensor, index: Tensor, k: int, own: bool) -> tuple[Tensor, Tensor]:
    norm = torch.nn.functional.normalize
    cosines = norm(queries.double(), dim=1) @ norm(index.double(), dim=1).T
    if own:
        cosines.fill_diagonal_(-9)
    order = cosines.sort(dim=1, descending=True)
    return order.values[:, :k], order.indices[:, :k]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("faiss_from", [10**6, 1])
def test_search_is_a_sort_of_all_cosines(own: bool, faiss_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if faiss_from == 1:
        pytest.importorskip("faiss")
    monkeypatch.setattr(retrieval, "QUERIES", 7)
    monkeypatch.setattr(retrieval, "ROWS", 11)
    index = rows(50) * torch.linspace(0.1, 9, 50)[:, None]
    queries = index if own else rows(20, seed=1)
    cosines, found = search(queries, index, 13, own, faiss_from=faiss_from)
    wanted = by_sorting(queries, index, 13, own)
    assert torch.equal(found, wanted[1])
    torch.testing.assert_close(cosines, wanted[0].float(), atol=1e-6, rtol=1e-5)
    if own:
        assert not (found == torch.arange(50)[:, None]).any()


@pytest.mark.parametrize("faiss_from", [10**6, 1])
def test_of_equal_items_none_is_its_own_neighbour(faiss_from: int) -> None:
    if faiss_from == 1:
        pytest.importorskip("faiss")
    index = torch.ones(5, 3)
    cosines, found = search(index, index, 4, own=True, faiss_from=faiss_from)
    assert found.shape == (5, 4)
    assert (cosines > 0.999).all()
    assert all(len(set(row)) == 4 for row in found.tolist())
    if faiss_from > 1:
        assert not (found == torch.arange(5)[:, None]).any()


def test_no_more_than_a_block_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "QUERIES", 8)
    monkeypatch.setattr(retrieval, "ROWS", 16)
    largest = 0
    plain = torch.Tensor.topk

    def watched(self: Tensor, *args: object, **options: object) -> object:
        nonlocal largest
        largest = max(largest, self.numel())
        return plain(self, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(torch.Tensor, "topk", watched)
    search(rows(100), rows(300, seed=2), 3)
    assert largest == 8 * 16


def test_a_small_index_gives_all_it_has_and_an_empty_one_is_refused() -> None:
    assert search(rows(2), rows(3, seed=1), 10)[1].shape == (2, 3)
    with pytest.raises(UserError, match="nothing to retrieve"):
        search(rows(1), rows(1), 5, own=True)


def by_loops(
    queries: Tensor, query_labels: list[int], index: Tensor, labels: list[int], k: int, own: bool
) -> dict[str, float]:
    order = by_sorting(queries, index, len(index) - own, own)[1].tolist()
    sums, asked = dict.fromkeys(("top1", "recall", "precision", "map"), 0.0), 0
    for q, label in enumerate(query_labels):
        all_relevant = sum(other == label for i, other in enumerate(labels) if not (own and i == q))
        if label < 0 or not all_relevant:
            continue
        asked += 1
        found = [labels[row] == label for row in order[q][:k]]
        sums["top1"] += found[0]
        sums["recall"] += any(found)
        sums["precision"] += sum(found) / k
        sums["map"] += sum(sum(found[: i + 1]) / (i + 1) for i in range(k) if found[i]) / min(k, all_relevant)
    return {name: value / asked for name, value in sums.items()}


@pytest.mark.parametrize("own", [False, True])
def test_measures_are_those_of_loops(own: bool) -> None:
    index, labels = rows(40), torch.arange(40) % 7
    labels[35:] = -1
    queries, query_labels = (index, labels) if own else (rows(15, seed=3), torch.arange(15) % 9)
    found = search(queries, index, 6, own)[1]
    counts = relevant_counts(query_labels, labels, own)
    scores = retrieval_scores(relevant(query_labels, labels, found), counts)
    wanted = by_loops(queries, query_labels.tolist(), index, labels.tolist(), 6, own)
    assert scores == pytest.approx(wanted, abs=1e-12)


def test_measures_are_those_of_torchmetrics() -> None:
    index, labels, queries, query_labels = rows(60), torch.arange(60) % 5, rows(12, seed=4), torch.arange(12) % 5
    cosines, found = search(queries, index, 60)
    hits = relevant(query_labels, labels, found)
    scores = retrieval_scores(hits[:, :8], relevant_counts(query_labels, labels))
    which = torch.arange(12)[:, None].expand_as(hits)
    for name, metric in (("recall", RetrievalHitRate(top_k=8)), ("precision", RetrievalPrecision(top_k=8))):
        assert scores[name] == pytest.approx(metric(cosines, hits, which).item(), abs=1e-6)


def test_of_several_labels_one_in_common_is_enough() -> None:
    nan = torch.nan
    queries = torch.tensor([[1.0, 0, 1], [0, 0, 0], [nan, nan, nan]])
    index = torch.tensor([[0.0, 1, 0], [1, 1, 0], [0, 0, 1], [nan, nan, nan]])
    hits = relevant(queries, index, torch.arange(4).expand(3, 4))
    assert hits.tolist() == [[False, True, True, False], [False] * 4, [False] * 4]
    assert relevant_counts(queries, index).tolist() == [2, 0, 0]
    assert relevant_counts(index, index, own=True).tolist() == [1, 1, 0, 0]
    assert retrieval_scores(hits[1:], torch.tensor([0, 0])) == {}


def test_several_labels_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(4)
    queries, index = ((torch.rand(n, 5, generator=draws) < 0.2).float() for n in (70, 90))
    near = torch.randint(0, 90, (70, 4), generator=draws)
    share = (queries[:, None] * index[None]).sum(2) > 0  # (70, 90)
    monkeypatch.setattr(retrieval, "QUERIES", 8)
    monkeypatch.setattr(retrieval, "ROWS", 16)
    largest, plain = 0, torch.Tensor.sum

    def watched(self: Tensor, *args: object, **options: object) -> Tensor:
        nonlocal largest
        largest = max(largest, self.numel())
        return plain(self, *args, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch.Tensor, "sum", watched)
    assert relevant_counts(queries, index).tolist() == [row.count(True) for row in share.tolist()]
    assert largest == 8 * 16
    assert torch.equal(relevant(queries, index, near), share.gather(1, near))
