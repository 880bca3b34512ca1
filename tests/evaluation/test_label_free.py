"""alpha-ReQ, LiDAR, two-NN, rank correlations: against numpy and scipy, and on data whose answer is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ssl_lightning.evaluation.label_free import alpha_req, kendall, least_correlation, lidar, spearman, two_nn


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_spectrum(alpha: float, count: int = 400, dim: int = 60) -> Tensor:
    """Rows whose covariance has exactly the eigenvalues i^-alpha."""
    x = draws(count, dim)
    x = x - x.mean(0)
    q, _ = torch.linalg.qr(x)
    return q * torch.arange(1, dim + 1, dtype=torch.float64).pow(-alpha / 2)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.3])
@pytest.mark.parametrize("dim", [120, 20])
def test_alpha_req_finds_the_exponent(alpha: float, dim: int) -> None:
    x = with_spectrum(alpha, dim=dim)
    assert alpha_req(x) == pytest.approx(alpha, abs=1e-8)
    assert alpha_req(5 + 3 * x) == pytest.approx(alpha, abs=1e-8)


def test_alpha_req_is_numpy_s_fit_of_the_spectrum() -> None:
    x = draws(200, 120) @ draws(120, 120, seed=1)
    values = np.linalg.svd((x - x.mean(0)).numpy(), compute_uv=False) ** 2
    places = np.arange(11, 101)
    slope = np.polyfit(np.log(places), np.log(values[10:100]), 1)[0]
    assert alpha_req(x) == pytest.approx(-slope, rel=1e-8)
    with pytest.raises(ValueError, match="three directions"):
        alpha_req(torch.ones(9, 1) * torch.arange(9)[:, None])


def by_loops(views: np.ndarray, delta: float = 1e-4, eps: float = 1e-7) -> float:
    count, each, dim = views.shape
    grand = views.reshape(-1, dim).mean(0)
    s_b, s_w = np.zeros((dim, dim)), np.zeros((dim, dim))
    for item in views:
        mean = item.mean(0)
        s_b += np.outer(mean - grand, mean - grand) / (count - 1)
        for view in item:
            s_w += np.outer(view - mean, view - mean) / (count * (each - 1))
    s_w += delta * np.eye(dim)
    shares = np.linalg.eigvals(np.linalg.solve(s_w, s_b)).real.clip(min=0)  # similar to the symmetric form
    shares = shares / shares.sum() + eps
    return float(np.exp(-(shares * np.log(shares)).sum()))


def test_lidar_is_that_of_loops() -> None:
    views = draws(40, 1, 8) * torch.linspace(0.2, 3, 8) + 0.3 * draws(40, 5, 8, seed=1)
    assert lidar(views) == pytest.approx(by_loops(views.numpy()), rel=1e-6)


def test_lidar_counts_the_directions_in_which_items_differ_more_than_views() -> None:
    items, noise = torch.zeros(600, 1, 12, dtype=torch.float64), 0.01 * draws(600, 6, 12, seed=2)
    items[:, 0, :4] = draws(600, 4)
    assert lidar(items + noise) == pytest.approx(4, rel=0.05)
    with pytest.raises(ValueError, match="two views"):
        lidar(draws(5, 1, 3))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_two_nn_finds_the_dimension(dim: int) -> None:
    x = torch.rand(1500, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inside = x @ torch.linalg.qr(draws(20, dim))[0].T  # turned into 20 dimensions
    assert two_nn(inside) == pytest.approx(dim, rel=0.12)
    assert two_nn(torch.cat([inside, inside])) == two_nn(inside), "copies count once"


def test_two_nn_is_that_of_loops() -> None:
    x = draws(60, 3).numpy()
    ratios = []
    for i in range(60):
        distances = sorted(float(np.linalg.norm(x[i] - x[j])) for j in range(60) if j != i)
        ratios.append(distances[1] / distances[0])
    kept = sorted(ratios)[:54]
    logs, heights = np.log(kept), [-math.log(1 - (i + 1) / 60) for i in range(54)]
    assert two_nn(torch.from_numpy(x)) == pytest.approx(float(np.dot(logs, heights) / np.dot(logs, logs)), rel=1e-9)
    with pytest.raises(ValueError, match="three different rows"):
        two_nn(torch.ones(9, 2))


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlations_are_scipy_s(ties: bool) -> None:
    x, y = draws(12).tolist(), draws(12, seed=5).tolist()
    if ties:
        x, y = [round(v) for v in x], [round(v) for v in y]
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert spearman(x, x) == pytest.approx(1)
    assert kendall(x, [-v for v in x]) == pytest.approx(-1)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(kendall([1, 1, 1], [1, 2, 3]))


def test_what_chance_reaches() -> None:
    generator = torch.Generator().manual_seed(0)
    first = list(range(10))
    by_chance = [abs(spearman(first, torch.randperm(10, generator=generator).tolist())) for _ in range(2000)]
    share = sum(value >= least_correlation(10) for value in by_chance) / 2000
    assert 0.02 < share < 0.08
    assert least_correlation(4) == 1
