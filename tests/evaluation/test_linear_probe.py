"""The grid of probes against torch.optim, one probe at a time, and against the optimum that L-BFGS finds."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid, train_probes
from ssl_lightning.tasks.classify import Classify


def blobs(count: int, classes: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping Gaussian classes in float64; the class centres are the same for every seed."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % classes
    return centers[labels] + torch.randn(count, dim, dtype=torch.float64, generator=generator), labels


def trained_alone(
    x: Tensor, labels: Tensor, classes: int, lr: float, weight_decay: float, settings: ProbeSettings
) -> nn.Linear:
    """The plain loop: nn.Linear, torch.optim, LambdaLR."""
    probe = nn.Linear(x.shape[1], classes).double()
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    groups = [{"params": [probe.weight], "weight_decay": weight_decay}, {"params": [probe.bias], "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, lr=lr)
    total = settings.epochs * math.ceil(len(x) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * s / total)))
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(settings.batch_size):
            loss = F.cross_entropy(probe(x[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return probe


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_each_probe_of_the_grid_is_the_probe_trained_alone(optimizer: str) -> None:
    x, labels = blobs(50, classes=3, dim=7)
    settings = ProbeSettings(optimizer=optimizer, epochs=6, batch_size=16, seed=3)  # the last batch is a short one
    grid = [(0.01, 0.0), (0.1, 0.0), (0.1, 0.3), (0.5, 1e-3)]
    weight, bias = train_probes(x, labels, Classify.of(3), grid, settings)
    assert weight.shape == (4, 3, 7)
    for g, (lr, decay) in enumerate(grid):
        alone = trained_alone(x, labels, 3, lr, decay, settings)
        torch.testing.assert_close(weight[g], alone.weight.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(bias[g], alone.bias.detach(), rtol=1e-9, atol=1e-9)


def test_long_training_reaches_the_optimum_that_lbfgs_finds() -> None:
    x, labels = blobs(60, classes=3, dim=4)
    decay = 0.05
    probe = nn.Linear(4, 3).double()
    tolerances = {"tolerance_grad": 1e-12, "tolerance_change": 1e-16}
    lbfgs = torch.optim.LBFGS(probe.parameters(), max_iter=500, line_search_fn="strong_wolfe", **tolerances)

    def objective() -> Tensor:
        lbfgs.zero_grad()
        loss = F.cross_entropy(probe(x), labels) + decay / 2 * probe.weight.square().sum()
        loss.backward()
        return loss

    lbfgs.step(objective)
    settings = ProbeSettings(epochs=2000, batch_size=60)
    weight, bias = train_probes(x, labels, Classify.of(3), [(0.5, decay)], settings)
    torch.testing.assert_close(weight[0], probe.weight.detach(), rtol=1e-6, atol=1e-6)
    # A shift of all biases changes nothing; compare them up to it.
    torch.testing.assert_close(
        bias[0] - bias[0].mean(), (probe.bias - probe.bias.mean()).detach(), rtol=1e-6, atol=1e-6
    )


def test_choice_is_made_on_the_holdout_and_the_winner_trained_on_all() -> None:
    (x, labels), (test_x, test_labels) = blobs(200, 3, 5), blobs(90, 3, 5, seed=1)
    settings = ProbeSettings(lrs=(1e-6, 0.1), weight_decays=(0.0, 10.0), epochs=10, batch_size=32, holdout=0.25, seed=5)
    result = probe_grid(x, labels, test_x, test_labels, Classify.of(3), settings)

    mean, std = x.mean(0), x.std(0)
    standard = (x - mean) / std
    order = torch.randperm(200, generator=torch.Generator().manual_seed(5))
    held, kept = order[:50], order[50:]
    for row in result.table:
        alone = trained_alone(standard[kept], labels[kept], 3, row["lr"], row["weight_decay"], settings)
        logits = alone(standard[held])
        assert row["holdout_top1"] == (logits.argmax(1) == labels[held]).double().mean().item()
        assert row["holdout_loss"] == pytest.approx(F.cross_entropy(logits, labels[held]).item(), rel=1e-9)
    best = max(result.table, key=lambda row: (row["holdout_top1"], -row["holdout_loss"]))
    assert (result.lr, result.weight_decay) == (best["lr"], best["weight_decay"])
    final = trained_alone(standard, labels, 3, result.lr, result.weight_decay, settings)
    logits = final((test_x - mean) / std)
    torch.testing.assert_close(test_x @ result.weight.T + result.bias, logits.detach(), rtol=1e-8, atol=1e-8)
    assert result.top1 == (logits.argmax(1) == test_labels).double().mean().item() > 0.6
    assert result.top5 is None


def test_the_test_set_cannot_change_the_choice() -> None:
    x, labels = blobs(100, 3, 5)
    settings = ProbeSettings(epochs=3)
    chosen = {
        (r.lr, r.weight_decay, r.weight.sum().item())
        for r in (probe_grid(x, labels, *blobs(30, 3, 5, seed), Classify.of(3), settings) for seed in (1, 2))
    }
    assert len(chosen) == 1


def test_top5_scales_and_dead_features() -> None:
    (x, labels), (test_x, test_labels) = blobs(120, 8, 6), blobs(80, 8, 6, seed=1)
    settings = ProbeSettings(lrs=(0.1,), weight_decays=(0.0,), epochs=5)
    result = probe_grid(x, labels, test_x, test_labels, Classify.of(8), settings)
    assert result.top5 is not None
    assert result.top1 < result.top5 <= 1
    scale = torch.tensor([1e3, 1e-3, 1.0, 5.0, 1.0, 1.0]).double()
    wide = torch.cat([x * scale, torch.full((120, 1), 7.0)], dim=1)  # scaled, shifted, and one constant feature
    wide_test = torch.cat([test_x * scale, torch.full((80, 1), 7.0)], dim=1)
    again = probe_grid(wide, labels, wide_test, test_labels, Classify.of(8), settings)
    assert again.top1 == pytest.approx(result.top1, abs=0.02)


def test_a_diverging_probe_leaves_the_others_alone_and_is_not_chosen() -> None:
    x, labels = blobs(60, 3, 5)
    settings = ProbeSettings(lrs=(0.1, math.inf), weight_decays=(0.0,), epochs=4)
    result = probe_grid(x, labels, x, labels, Classify.of(3), settings)
    assert result.lr == 0.1
    assert math.isinf(result.table[1]["holdout_loss"])
    assert result.table[1]["holdout_top1"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"optimizer": "adam"}, "'adam'"),
        ({"lrs": ()}, "at least one learning rate"),
        ({"holdout": 1.0}, "holdout"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_wrong_settings(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ProbeSettings(**arguments)


def test_wrong_labels() -> None:
    x, labels = blobs(20, 3, 4)
    with pytest.raises(UserError, match="two labelled training images"):
        probe_grid(x[:1], labels[:1], x, labels, Classify.of(3))
    with pytest.raises(UserError, match="there is none"):
        probe_grid(x, labels, x[:0], labels[:0], Classify.of(3))
    with pytest.raises(UserError, match=r"0\.\.1; found 0 to 2"):
        probe_grid(x, labels, x, labels, Classify.of(2))
