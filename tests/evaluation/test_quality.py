"""Each measure against a naive loop in float64, and at the points where its value is known."""

import math

import pytest
import torch
from torch import Tensor

from ssl_lightning.evaluation.quality import alignment, effective_rank, feature_std, pair_statistics, rankme, uniformity


def exp_entropy(values: list[float], eps: float = 0.0) -> float:
    shares = [v / sum(values) + eps for v in values]
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


def unit_rows(x: Tensor) -> list[list[float]]:
    return [[v / math.sqrt(sum(a * a for a in row)) for v in row] for row in x.double().tolist()]


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (9, 9)])
def test_rankme_and_effective_rank_equal_their_definitions(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, dtype=torch.float64) @ torch.diag(torch.linspace(0.01, 2, shape[1], dtype=torch.float64)) + 1
    assert rankme(x) == pytest.approx(exp_entropy(torch.linalg.svdvals(x).tolist(), 1e-7), rel=1e-6)
    variances = torch.linalg.svdvals(torch.cov(x.T)).tolist()
    assert effective_rank(x) == pytest.approx(exp_entropy(variances), rel=1e-6)


def test_ranks_at_known_points() -> None:
    orthogonal = torch.linalg.qr(torch.randn(50, 8).double()).Q
    assert rankme(orthogonal) == pytest.approx(8, rel=1e-4)
    line = torch.randn(50, 1) * torch.randn(1, 8)
    assert rankme(line) == pytest.approx(1, abs=1e-3)
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.ones(50, 8)) == 1
    assert effective_rank(torch.cat([torch.eye(8), -torch.eye(8)])) == pytest.approx(8)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_alignment_equals_the_loop(alpha: float) -> None:
    x, y = torch.randn(11, 5), torch.randn(11, 5)
    terms = [math.dist(a, b) ** alpha for a, b in zip(unit_rows(x), unit_rows(y), strict=True)]
    assert alignment(x, y, alpha) == pytest.approx(sum(terms) / 11, rel=1e-9)
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 11, 64])
def test_uniformity_equals_the_loop_for_any_chunk(chunk: int) -> None:
    x = torch.randn(11, 5)
    rows = unit_rows(x)
    terms = [math.exp(-2 * math.dist(a, b) ** 2) for i, a in enumerate(rows) for b in rows[:i]]
    assert uniformity(x, chunk=chunk) == pytest.approx(math.log(sum(terms) / len(terms)), rel=1e-9)


def test_uniformity_of_many_rows_is_that_of_a_fixed_subset() -> None:
    x = torch.randn(400, 5)
    assert uniformity(x, max_rows=300) == uniformity(x, max_rows=300)
    assert uniformity(x, max_rows=300) == pytest.approx(uniformity(x), abs=0.1)
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-12)


def test_feature_std_equals_the_loop() -> None:
    x = torch.randn(13, 4)
    rows = unit_rows(x)
    stds = []
    for d in range(4):
        column = [row[d] for row in rows]
        mean = sum(column) / 13
        stds.append(math.sqrt(sum((v - mean) ** 2 for v in column) / 12))
    assert feature_std(x) == pytest.approx(sum(stds) / 4 * 2, rel=1e-9)
    assert feature_std(torch.ones(13, 4)) == pytest.approx(0, abs=1e-12)
    assert feature_std(torch.randn(4000, 64)) == pytest.approx(1, abs=0.02)


def test_pair_statistics_equal_the_loop() -> None:
    x = torch.randn(9, 4)
    y = x + 0.8 * torch.randn(9, 4)
    s = [[sum(a * b for a, b in zip(u, v)) for v in unit_rows(y)] for u in unit_rows(x)]
    found = pair_statistics(x, y)
    assert found["positive_similarity"] == pytest.approx(sum(s[i][i] for i in range(9)) / 9)
    others = [s[i][j] for i in range(9) for j in range(9) if i != j]
    assert found["negative_similarity"] == pytest.approx(sum(others) / 72)
    assert found["positive_top1"] == sum(max(row) == row[i] for i, row in enumerate(s)) / 9
    bounds = []
    for t in (0.03, 0.1, 0.3, 1.0):
        rows = [math.exp(s[i][i] / t) / sum(math.exp(v / t) for v in s[i]) for i in range(9)]
        bounds.append(math.log(9) + sum(map(math.log, rows)) / 9)
    assert found["mutual_information"] == pytest.approx(max(bounds))


def test_pair_statistics_at_known_points() -> None:
    apart = pair_statistics(torch.eye(16), 3 * torch.eye(16))  # all that 16 images can show
    assert apart["mutual_information"] == pytest.approx(math.log(16), abs=1e-9)
    assert (apart["positive_similarity"], apart["negative_similarity"], apart["positive_top1"]) == (1, 0, 1)
    assert pair_statistics(torch.ones(16, 3), torch.ones(16, 3))["mutual_information"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("measure", [uniformity, feature_std])
def test_one_row_is_refused(measure: object) -> None:
    with pytest.raises(ValueError, match="two rows"):
        measure(torch.randn(1, 3))
