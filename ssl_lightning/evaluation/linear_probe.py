"""A grid of linear probes on features computed once, all trained in one pass, for any task of K outputs.

The weights of the G probes stand side by side in one (D, G*K) matrix, so that a step of the whole grid is two matrix
products. The gradient of a linear layer is short enough to write down: x^T residual / B, with the task's `residual`, of
classes softmax - onehot. Each probe gets exactly the steps that torch.optim would give it alone, as the tests show.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core import progress
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.readouts import FEATURES, check_names, columns
from ssl_lightning.core.task import Task
from ssl_lightning.evaluation.lbfgs import STEPS, converged, fit_probes

OPTIMIZERS = {"sgd": "SGD momentum 0.9", "adamw": "AdamW", "lbfgs": "L-BFGS"}


@dataclass(frozen=True)
class ProbeSettings:
    """The protocol of the linear probe.

    Every pair of a learning rate and a weight decay is one probe, for each readout. The rates suit features of unit
    variance and are taken as they are, whatever the batch size. Cosine to 0 per step; no weight decay on the bias.
    With "lbfgs" each weight decay is one probe, an L2 penalty, at its optimum; there is no rate and no epoch.
    """

    lrs: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2)
    optimizer: str = "sgd"  # sgd (momentum 0.9) | adamw | lbfgs
    epochs: int = 50
    batch_size: int = 512
    holdout: float = 0.1  # the share of the training set on which the probe is chosen
    seed: int = 0  # of the split and of the order of the batches
    readouts: tuple[str, ...] = (FEATURES,)  # what is read of the network: features, mean, cls, last<n>

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"no probe optimizer named {self.optimizer!r}; choose 'sgd', 'adamw' or 'lbfgs'")
        check_names(self.readouts)
        if not self.lrs or not self.weight_decays:
            raise UserError("the linear probe needs at least one learning rate and one weight decay")
        if not 0 < self.holdout < 1:
            raise UserError(f"the linear probe's holdout is a share between 0 and 1, not {self.holdout}")
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError("the linear probe needs epochs and batch_size of at least 1")

    @property
    def grid(self) -> list[tuple[float, float]]:
        """(learning rate, weight decay) of each probe of a readout; the rate is 0 where there is none."""
        return list(product((0.0,) if self.optimizer == "lbfgs" else self.lrs, self.weight_decays))

    def describe(self) -> str:
        """The protocol in one line, for results.json."""
        name = OPTIMIZERS[self.optimizer]
        decays = f"weight decay ({', '.join(f'{wd:g}' for wd in self.weight_decays)})"
        if self.optimizer == "lbfgs":
            how, chosen = f"{name} to the optimum", decays
        else:
            how = f"{name}, cosine, {self.epochs} epochs, batch {self.batch_size}"
            chosen = f"lr ({', '.join(f'{lr:g}' for lr in self.lrs)}) x {decays}"
        if tuple(self.readouts) != (FEATURES,):
            chosen += f" x readout ({', '.join(self.readouts)})"
        return (
            f"frozen features standardised by the training set, {how}; {chosen} chosen on {self.holdout:.0%} of the "
            "training set, then trained on all of it; test set seen once"
        )


@dataclass(frozen=True)
class ProbeResult:
    """The chosen probe on the test set, and how the grid did on the held-out part of the training set."""

    scores: dict[str, float]  # the task's metrics
    lr: float  # 0 where there is none
    weight_decay: float
    table: list[dict[str, Any]]  # readout, lr, weight_decay, holdout_loss and holdout_<main metric> of each probe
    weight: Tensor  # (K, D), for the chosen readout as it is (not standardised)
    bias: Tensor  # (K,)
    readout: str = FEATURES

    @property
    def top1(self) -> float:
        """Of classes."""
        return self.scores["top1"]

    @property
    def top5(self) -> float | None:
        """Of classes; None with five or fewer."""
        return self.scores.get("top5")

    def chosen(self, settings: ProbeSettings) -> str:
        """What was chosen, in words."""
        told = [f"lr {self.lr:g}"] if settings.optimizer != "lbfgs" else []
        told += [f"weight decay {self.weight_decay:g}"]
        return ", ".join(told + ([f"readout {self.readout}"] if tuple(settings.readouts) != (FEATURES,) else []))


def probe_grid(
    train_x: Tensor,
    train_labels: Tensor,
    test_x: Tensor,
    test_labels: Tensor,
    task: Task,
    settings: ProbeSettings | None = None,
    widths: Mapping[str, int] | None = None,
) -> ProbeResult:
    """Trains the grid, chooses on a seeded split of the training set, trains the choice on all, tests it once.

    Args:
        train_x: (N, D) features, on the device and in the type to compute in.
        train_labels: the task's targets, all known: of classes (N,) int64 in 0..K-1.
        test_x: (M, D).
        test_labels: of M items.
        task: prepared: it knows its K outputs.
        widths: of the readouts that lie side by side in the features, in order; None: the features are one readout.

    Raises:
        UserError: fewer than two training images, no test image, or labels that the task does not take.
    """
    settings = settings or ProbeSettings()
    _check(train_labels, test_labels, task)
    order = torch.randperm(len(train_x), generator=torch.Generator().manual_seed(settings.seed)).to(train_x.device)
    held, kept = order.tensor_split([max(1, round(settings.holdout * len(train_x)))])
    places, grid = columns(widths or {FEATURES: train_x.shape[1]}), settings.grid
    table: list[dict[str, Any]] = []
    for name, place in places.items():
        x, _, _ = _standardised(train_x[:, place].contiguous(), task, settings.seed)
        weight, bias = train_probes(x[kept], train_labels[kept], task, grid, settings)
        rows = _holdout_table(weight, bias, x[held], train_labels[held], grid, task)
        table += [{"readout": name, **row} for row in rows]
    sign = 1 if task.higher else -1
    best = max(table, key=lambda row: (sign * row[f"holdout_{task.main}"], -row["holdout_loss"]))
    readout, pair = str(best["readout"]), (float(best["lr"]), float(best["weight_decay"]))

    x, mean, std = _standardised(train_x[:, places[readout]].contiguous(), task, settings.seed)
    weight, bias = train_probes(x, train_labels, task, [pair], settings)
    weight, bias = weight[0] / std, bias[0] - weight[0] @ (mean / std)  # the standardisation, folded in
    outputs = test_x[:, places[readout]] @ weight.T + bias  # (M, K)
    return ProbeResult(task.measure(outputs, test_labels), *pair, table, weight, bias, readout)


def _standardised(x: Tensor, task: Task, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, D) of mean 0 and variance 1, or shorter ones for losses that grow with them; what was taken off
    (D,), and what they were divided by (D,)."""
    mean, std = x.mean(dim=0), x.std(dim=0)
    std = torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))  # a constant feature stays 0
    if not task.bounded:
        std = std * longest((x - mean) / std, seed)
    return (x - mean) / std, mean, std


def longest(x: Tensor, seed: int = 0, rounds: int = 30) -> Tensor:
    """The root of the largest eigenvalue of x^T x / N, of x (N, D): by so much a squared error is too steep for a rate.

    By power iteration; at least 1.
    """
    v = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(seed)).to(x)
    for _ in range(rounds):
        v = x.T @ (x @ (v / v.norm().clamp_min(1e-12))) / len(x)
    return v.norm().sqrt().clamp_min(1)


def train_probes(
    x: Tensor, labels: Tensor, task: Task, grid: list[tuple[float, float]], settings: ProbeSettings
) -> tuple[Tensor, Tensor]:
    """Trains one probe from zero for each (lr, weight decay) of the grid: weights (G, K, D) and biases (G, K).

    x is (N, D), labels N targets of the task. All probes see the same batches, in an order that follows from
    `settings.seed`. A probe that diverges becomes NaN and leaves the others alone. With "lbfgs" see `fit_probes`.
    """
    if settings.optimizer == "lbfgs":
        return _at_the_optimum(x, labels, task, [decay for _, decay in grid])
    count, dim, probes, width = len(x), x.shape[1], len(grid), len(task.names)
    lrs, decays = (x.new_tensor(v).repeat_interleave(width) for v in zip(*grid, strict=True))  # (G*K,)
    weight, bias = x.new_zeros(dim, probes * width), x.new_zeros(probes * width)
    step_rule = _SGD(weight, bias) if settings.optimizer == "sgd" else _AdamW(weight, bias)
    generator = torch.Generator().manual_seed(settings.seed)
    total = settings.epochs * math.ceil(count / settings.batch_size)
    step = 0
    for _ in progress.steps(range(settings.epochs), f"linear probe, {probes} setting{'s' * (probes > 1)}"):
        for rows in torch.randperm(count, generator=generator).to(x.device).split(settings.batch_size):
            batch, target = x[rows], labels[rows]  # (B, D), (B, ...)
            outputs = torch.addmm(bias, batch, weight).view(len(rows), probes, width)
            error = task.residual(outputs, target).view(len(rows), -1) / len(rows)  # (B, G*K), of the mean losses
            factor = 0.5 * (1 + math.cos(math.pi * step / total))
            step_rule.step(batch.T @ error, error.sum(dim=0), lrs * factor, decays)
            step += 1
    return weight.T.reshape(probes, width, dim), bias.view(probes, width)


def _at_the_optimum(x: Tensor, labels: Tensor, task: Task, decays: list[float]) -> tuple[Tensor, Tensor]:
    weight, bias, slopes = fit_probes(x, labels, task, decays)
    for decay, slope in zip(decays, slopes, strict=True):
        if not converged(slope, x.dtype):
            progress.say(f"L-BFGS stopped after {STEPS} steps at weight decay {decay:g}, at a slope of {slope:.0e}")
    return weight, bias


class _SGD:
    """torch.optim.SGD with momentum, a learning rate and a weight decay for each column."""

    def __init__(self, weight: Tensor, bias: Tensor, momentum: float = 0.9) -> None:
        self.weight, self.bias, self.momentum = weight, bias, momentum
        self.weight_velocity, self.bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)

    def step(self, weight_grad: Tensor, bias_grad: Tensor, lrs: Tensor, decays: Tensor) -> None:
        weight_grad.addcmul_(self.weight, decays)
        self.weight_velocity.mul_(self.momentum).add_(weight_grad)
        self.bias_velocity.mul_(self.momentum).add_(bias_grad)
        self.weight.addcmul_(self.weight_velocity, lrs, value=-1)
        self.bias.addcmul_(self.bias_velocity, lrs, value=-1)


class _AdamW:
    """torch.optim.AdamW, a learning rate and a weight decay for each column."""

    def __init__(self, weight: Tensor, bias: Tensor, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.parameters = (weight, bias)
        self.betas, self.steps = betas, 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    def step(self, weight_grad: Tensor, bias_grad: Tensor, lrs: Tensor, decays: Tensor) -> None:
        self.steps += 1
        first_bias, second_bias = (1 - beta**self.steps for beta in self.betas)
        self.parameters[0].mul_(1 - lrs * decays)
        for p, grad, (first, second) in zip(self.parameters, (weight_grad, bias_grad), self.moments, strict=True):
            first.lerp_(grad, 1 - self.betas[0])
            second.mul_(self.betas[1]).addcmul_(grad, grad, value=1 - self.betas[1])
            p.sub_(lrs * (first / first_bias) / ((second / second_bias).sqrt() + 1e-8))


def _holdout_table(
    weight: Tensor, bias: Tensor, x: Tensor, labels: Tensor, grid: list[tuple[float, float]], task: Task
) -> list[dict[str, float]]:
    """Main metric and loss of each probe on the held-out part; a diverged probe has the worst metric, infinite loss."""
    table = []
    for (lr, decay), w, b in zip(grid, weight, bias, strict=True):
        outputs = x @ w.T + b
        loss = task.loss(outputs, labels).item()
        score = task.measure(outputs, labels)[task.main] if math.isfinite(loss) else math.nan
        if not math.isfinite(score):
            score, loss = task.worst, math.inf if not math.isfinite(loss) else loss
        table.append({"lr": lr, "weight_decay": decay, f"holdout_{task.main}": score, "holdout_loss": loss})
    return table


def _check(train_labels: Tensor, test_labels: Tensor, task: Task) -> None:
    if len(train_labels) < 2:
        raise UserError(f"the linear probe needs two labelled training images or more, not {len(train_labels)}")
    if not len(test_labels):
        raise UserError("the linear probe needs labelled test images; there is none")
    for split, labels in (("training", train_labels), ("test", test_labels)):
        task.check(labels, split, "image")
