"""kNN and the linear probe of tasks that have no classes."""

import torch
from torch import Tensor

from ssl_lightning.evaluation.knn import knn_average
from ssl_lightning.evaluation.linear_probe import ProbeSettings, longest, probe_grid
from ssl_lightning.tasks.regress import Regress


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mean_of_neighbours_is_that_of_a_loop() -> None:
    bank, targets, queries, k, temperature = drawn(20, 5), drawn(20, 2, seed=1), drawn(7, 5, seed=2), 4, 0.3
    found = knn_average(bank, targets, queries, k, temperature, chunk=3)
    for q, query in enumerate(queries):
        cosine = [float(query @ row / query.norm() / row.norm()) for row in bank]
        nearest = sorted(range(20), key=lambda i: -cosine[i])[:k]
        weights = [torch.tensor(cosine[i] / temperature, dtype=torch.float64).exp() for i in nearest]
        wanted = sum(w * targets[i] for w, i in zip(weights, nearest, strict=True)) / sum(weights)
        torch.testing.assert_close(found[q], wanted)


def test_the_longest_direction_is_the_root_of_the_largest_eigenvalue() -> None:
    x = drawn(50, 8) * torch.arange(1, 9)
    wanted = torch.linalg.eigvalsh(x.T @ x / 50).max().sqrt()
    torch.testing.assert_close(longest(x), wanted, rtol=0.01, atol=0)
    assert longest(x * 1e-3) == 1


def test_a_probe_of_numbers_is_stable_on_wide_features_that_say_the_same() -> None:
    """768 features of one cause: at the rates of classes a squared error diverged (R2 of -595 on raw pixels)."""
    cause, noise = drawn(80, 1), drawn(80, 768, seed=1)
    x, y = (cause + 0.1 * noise).float(), (1990 + 10 * cause).float()
    task = Regress().prepare(["year"], y[:60])
    found = probe_grid(x[:60], y[:60], x[60:], y[60:], task, ProbeSettings(batch_size=60))
    assert found.scores["r2"] > 0.95
    assert found.scores["rmse"] < 2.5
    mine = task.measure(x[60:] @ found.weight.T + found.bias, y[60:])
    assert mine == found.scores


class Errors(Regress):
    """Of its main metric less is better."""

    main, higher, worst = "rmse", False, float("inf")


def test_the_probe_with_the_smaller_error_is_chosen_where_less_is_better() -> None:
    x = drawn(60, 4)
    targets = (x @ drawn(4, 1, seed=1)).float()
    task, settings = Errors().prepare(["a"], targets), ProbeSettings(lrs=(0.3, 1e-6), weight_decays=(0.0,), epochs=20)
    found = probe_grid(x, targets, x, targets, task, settings)
    assert found.lr == 0.3
    assert found.table[0]["holdout_rmse"] < found.table[1]["holdout_rmse"]
