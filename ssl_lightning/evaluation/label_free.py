"""More measures of features without labels: alpha-ReQ, LiDAR, intrinsic dimension; and how two rankings agree.

alpha-ReQ: Agrawal et al. 2022, https://openreview.net/forum?id=ii9X4vtZGTZ. LiDAR: Thilak et al. 2023,
https://arxiv.org/abs/2312.04000. Two-NN: Facco et al. 2017, https://arxiv.org/abs/1803.06992. Rank correlations:
Spearman 1904; Kendall 1945 (tau-b).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FEW = 5  # values of which no rank correlation is told as one


def alpha_req(x: Tensor, low: int = 11, high: int = 100) -> float:
    """The exponent a with which the eigenvalues of the covariance of x (N, D) decay, i-th ~ i^-a.

    By least squares on the logarithms of eigenvalues `low` to `high`; where there are fewer than `high`, from a tenth
    of them to all. Only those above 1e-12 of the largest count. The authors find features with an exponent near 1 best;
    a much larger one means that the features use few directions.

    Raises:
        ValueError: fewer than three eigenvalues to fit.
    """
    x = x.detach().double().cpu()
    x = x - x.mean(dim=0)
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    values = torch.linalg.eigvalsh(gram).flip(0)
    values = values[values > 1e-12 * values[0]]
    first, last = (low, high) if len(values) >= high else (max(1, len(values) // 10), len(values))
    if last - first < 2:
        raise ValueError(f"alpha-ReQ needs three directions or more, not {last - first + 1}")
    logs = torch.arange(first, last + 1, dtype=torch.float64).log(), values[first - 1 : last].log()
    x_, y_ = (part - part.mean() for part in logs)
    return float(-(x_ @ y_) / (x_ @ x_))


def lidar(views: Tensor, delta: float = 1e-4, eps: float = 1e-7) -> float:
    """The effective rank of the linear discriminant matrix with each item as a class, of views (N, V, D).

    S_w^-1/2 S_b S_w^-1/2, with S_b the covariance of the items' means, S_w that of views around their item's mean, plus
    `delta` times the identity; then exp of the entropy of its eigenvalues as shares of their sum (eq. 2 to 4; the
    authors take 50 views of 1,000 items or 10 of 10,000). From 1 to min(N - 1, D); higher is better.

    Raises:
        ValueError: fewer than two items, or fewer than two views of each.
    """
    if len(views) < 2 or views.shape[1] < 2:
        raise ValueError(f"LiDAR needs two views or more of two items or more, not {views.shape[1]} of {len(views)}")
    views = views.detach().double().cpu()
    means = views.mean(dim=1)  # (N, D)
    between = means - means.mean(dim=0)
    within = (views - means[:, None]).flatten(0, 1)  # (N V, D)
    eye = torch.eye(views.shape[2], dtype=torch.float64)
    s_b = between.T @ between / (len(views) - 1)
    s_w = within.T @ within / (len(views) * (views.shape[1] - 1)) + delta * eye
    values, vectors = torch.linalg.eigh(s_w)
    root = (vectors / values.sqrt()) @ vectors.T
    shares = torch.linalg.eigvalsh(root @ s_b @ root).clamp(min=0)
    total = float(shares.sum())
    return float(torch.special.entr(shares / total + eps).sum().exp()) if total > 0 else 1.0


def two_nn(x: Tensor, discarded: float = 0.1) -> float:
    """The intrinsic dimension of x (N, D) from the ratio of each row's distances to its second and first neighbour.

    The slope through the origin of -log(1 - F(mu)) over log(mu), with F the empirical distribution; the share
    `discarded` of largest ratios is left out, and rows that equal another one.

    Raises:
        ValueError: fewer than three different rows.
    """
    x = torch.unique(x.detach().double().cpu(), dim=0)
    if len(x) < 3:
        raise ValueError(f"the two nearest neighbours need three different rows or more, not {len(x)}")
    found = []
    for start in range(0, len(x), 512):
        distances = torch.cdist(x[start : start + 512], x, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(distances.topk(3, dim=1, largest=False).values[:, 1:])  # itself is the first
    nearest = torch.cat(found)
    ratios = (nearest[:, 1] / nearest[:, 0]).sort().values
    kept = ratios[: max(1, math.floor((1 - discarded) * len(ratios)))]
    share = torch.arange(1, len(kept) + 1, dtype=torch.float64) / len(ratios)
    log, height = kept.log(), -torch.log1p(-share.clamp(max=1 - 1e-12))
    square = float(log @ log)
    return float(log @ height) / square if square > 0 else math.inf


# ---- two rankings ----------------------------------------------------------------------------------------------------


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """The correlation of the ranks of two lists, equal values sharing theirs; nan where one has no order."""
    a, b = (_ranks(torch.tensor(list(values), dtype=torch.float64)) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    product = float(a.norm() * b.norm())
    return float(a @ b) / product if product > 0 else math.nan


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """tau-b: the share of pairs in the same order minus that in the opposite one, corrected for ties."""
    a, b = (torch.tensor(list(values), dtype=torch.float64) for values in (x, y))
    signs = [(one[:, None] - one[None]).sign().triu(1) for one in (a, b)]
    product = float(signs[0].abs().sum() * signs[1].abs().sum()) ** 0.5
    return float((signs[0] * signs[1]).sum()) / product if product > 0 else math.nan


def _ranks(values: Tensor) -> Tensor:
    below = (values[None] < values[:, None]).sum(1).double()
    equal = (values[None] == values[:, None]).sum(1).double()
    return below + (equal + 1) / 2


def least_correlation(count: int) -> float:
    """The Spearman correlation that so many values reach by chance once in twenty, two-sided; 1 of fewer than `FEW`.

    By the normal approximation 1.96 / sqrt(n - 1), which is a little small below ten.
    """
    return 1.0 if count < FEW else min(1.0, 1.96 / math.sqrt(count - 1))
