"""Linear probes at their optimum: L-BFGS on the mean loss plus an L2 penalty, with a test that it has converged.

For classes this is multinomial logistic regression, scikit-learn's `LogisticRegression` with C = 1 / (N * decay);
Kornblith et al. 2019 (https://arxiv.org/abs/1805.08974) probe so. For numbers it is ridge regression.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lightning.core import progress
from ssl_lightning.core.task import Task

STEPS = 500  # at most, for each decay
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}  # largest slope at which it has converged


def fit_probes(
    x: Tensor, labels: Tensor, task: Task, decays: Sequence[float], steps: int = STEPS
) -> tuple[Tensor, Tensor, list[float]]:
    """Minimises mean loss + decay / 2 |W|^2 for each decay, no penalty on the bias.

    The strongest decay is solved first, and each next one begins at the one before.

    Args:
        x: (N, D) features, standardised, in the type to compute in.
        labels: N targets of the task.
        task: prepared; its `loss` is minimised.
        decays: G of them, 0 or more.
        steps: at most so many for each.

    Returns:
        Weights (G, K, D), biases (G, K), and of each the largest slope left, see `TOLERANCE`.
    """
    width = len(task.names)
    weight = x.new_zeros(width, x.shape[1]).requires_grad_()
    bias = x.new_zeros(width).requires_grad_()
    found: dict[int, tuple[Tensor, Tensor, float]] = {}
    order = sorted(range(len(decays)), key=lambda g: -decays[g])
    for g in progress.steps(order, f"linear probe by L-BFGS, {len(decays)} setting{'s' * (len(decays) > 1)}"):
        slope = _minimise(x, labels, task, weight, bias, decays[g], steps)
        found[g] = weight.detach().clone(), bias.detach().clone(), slope
    weights, biases, slopes = zip(*(found[g] for g in range(len(decays))), strict=True)
    return torch.stack(weights), torch.stack(biases), list(slopes)


def converged(slope: float, dtype: torch.dtype) -> bool:
    """Is this slope small enough?"""
    return slope <= 10 * TOLERANCE.get(dtype, TOLERANCE[torch.float32])  # a line search ends where rounding begins


def _minimise(x: Tensor, labels: Tensor, task: Task, weight: Tensor, bias: Tensor, decay: float, steps: int) -> float:
    """Moves weight (K, D) and bias (K,) to the minimum; returns the largest slope that is left there."""
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=TOLERANCE.get(x.dtype, TOLERANCE[torch.float32]),
        tolerance_change=torch.finfo(x.dtype).tiny,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = task.loss(x @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(objective)
        objective()
    assert weight.grad is not None
    assert bias.grad is not None
    return max(float(weight.grad.abs().max()), float(bias.grad.abs().max()))
