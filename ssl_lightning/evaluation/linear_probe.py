"""A grid of linear probes on features computed once, all trained in one pass.

The weights of the G probes stand side by side in one (D, G*C) matrix, so that a step of the whole grid is two matrix
products. Softmax regression has a gradient short enough to write down: x^T (softmax - onehot) / B. Each probe gets
exactly the steps that torch.optim would give it alone, as the tests show.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class ProbeSettings:
    """The protocol of the linear probe.

    Every pair of a learning rate and a weight decay is one probe. The rates suit features of unit variance and are
    taken as they are, whatever the batch size. Cosine to 0 per step; no weight decay on the bias.
    """

    lrs: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2)
    optimizer: str = "sgd"  # sgd (momentum 0.9) | adamw
    epochs: int = 50
    batch_size: int = 512
    holdout: float = 0.1  # the share of the training set on which the probe is chosen
    seed: int = 0  # of the split and of the order of the batches

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"no probe optimizer named {self.optimizer!r}; choose 'sgd' or 'adamw'")
        if not self.lrs or not self.weight_decays:
            raise UserError("the linear probe needs at least one learning rate and one weight decay")
        if not 0 < self.holdout < 1:
            raise UserError(f"the linear probe's holdout is a share between 0 and 1, not {self.holdout}")
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError("the linear probe needs epochs and batch_size of at least 1")

    def describe(self) -> str:
        """The protocol in one line, for results.json."""
        name = "SGD momentum 0.9" if self.optimizer == "sgd" else "AdamW"
        rates = ", ".join(f"{lr:g}" for lr in self.lrs)
        decays = ", ".join(f"{wd:g}" for wd in self.weight_decays)
        return (
            f"frozen features standardised by the training set, {name}, cosine, {self.epochs} epochs, batch "
            f"{self.batch_size}; lr ({rates}) x weight decay ({decays}) chosen on {self.holdout:.0%} of the training "
            "set, then trained on all of it; test set seen once"
        )


@dataclass(frozen=True)
class ProbeResult:
    """The chosen probe on the test set, and how the grid did on the held-out part of the training set."""

    top1: float
    top5: float | None  # None with five classes or fewer
    lr: float
    weight_decay: float
    table: list[dict[str, float]]  # lr, weight_decay, holdout_top1, holdout_loss of each probe
    weight: Tensor  # (C, D), for features as they are (not standardised)
    bias: Tensor  # (C,)


def probe_grid(
    train_x: Tensor,
    train_labels: Tensor,
    test_x: Tensor,
    test_labels: Tensor,
    num_classes: int,
    settings: ProbeSettings | None = None,
) -> ProbeResult:
    """Trains the grid, chooses on a seeded split of the training set, trains the choice on all, tests it once.

    Args:
        train_x: (N, D) features, on the device and in the type to compute in.
        train_labels: (N,) int64 in 0..C-1.
        test_x: (M, D).
        test_labels: (M,).

    Raises:
        UserError: fewer than two training images, no test image, or a label outside 0..C-1.
    """
    settings = settings or ProbeSettings()
    _check(train_labels, test_labels, num_classes)
    mean, std = train_x.mean(dim=0), train_x.std(dim=0)
    std = torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))  # a constant feature stays 0
    x = (train_x - mean) / std
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(settings.seed)).to(x.device)
    held, kept = order.tensor_split([max(1, round(settings.holdout * len(x)))])

    grid = list(product(settings.lrs, settings.weight_decays))
    weight, bias = train_probes(x[kept], train_labels[kept], num_classes, grid, settings)
    table = _holdout_table(weight, bias, x[held], train_labels[held], grid)
    best = max(range(len(grid)), key=lambda g: (table[g]["holdout_top1"], -table[g]["holdout_loss"]))

    weight, bias = train_probes(x, train_labels, num_classes, [grid[best]], settings)
    weight, bias = weight[0] / std, bias[0] - weight[0] @ (mean / std)  # the standardisation, folded in
    logits = test_x @ weight.T + bias  # (M, C)
    top5 = topk_accuracy(logits, test_labels, 5) if num_classes > 5 else None
    return ProbeResult(topk_accuracy(logits, test_labels, 1), top5, *grid[best], table, weight, bias)


def train_probes(
    x: Tensor, labels: Tensor, num_classes: int, grid: list[tuple[float, float]], settings: ProbeSettings
) -> tuple[Tensor, Tensor]:
    """Trains one probe from zero for each (lr, weight decay) of the grid: weights (G, C, D) and biases (G, C).

    x is (N, D), labels (N,). All probes see the same batches, in an order that follows from `settings.seed`. A probe
    that diverges becomes NaN and leaves the others alone.
    """
    count, dim, probes = len(x), x.shape[1], len(grid)
    lrs, decays = (x.new_tensor(v).repeat_interleave(num_classes) for v in zip(*grid, strict=True))  # (G*C,)
    weight, bias = x.new_zeros(dim, probes * num_classes), x.new_zeros(probes * num_classes)
    step_rule = _SGD(weight, bias) if settings.optimizer == "sgd" else _AdamW(weight, bias)
    generator = torch.Generator().manual_seed(settings.seed)
    total = settings.epochs * math.ceil(count / settings.batch_size)
    step = 0
    for _ in range(settings.epochs):
        for rows in torch.randperm(count, generator=generator).to(x.device).split(settings.batch_size):
            batch, target = x[rows], labels[rows]  # (B, D), (B,)
            logits = torch.addmm(bias, batch, weight).view(len(rows), probes, num_classes)
            error = logits.softmax(dim=2)
            error[torch.arange(len(rows), device=x.device), :, target] -= 1
            error = error.view(len(rows), -1) / len(rows)  # (B, G*C), the gradient of the mean cross-entropies
            factor = 0.5 * (1 + math.cos(math.pi * step / total))
            step_rule.step(batch.T @ error, error.sum(dim=0), lrs * factor, decays)
            step += 1
    return weight.T.reshape(probes, num_classes, dim), bias.view(probes, num_classes)


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


def topk_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """The share of rows of logits (N, C) whose label is among the k largest."""
    return (logits.topk(k, dim=1).indices == labels[:, None]).sum().item() / len(labels)


def _holdout_table(
    weight: Tensor, bias: Tensor, x: Tensor, labels: Tensor, grid: list[tuple[float, float]]
) -> list[dict[str, float]]:
    """Accuracy and loss of each probe on the held-out part; a diverged probe has accuracy 0 and infinite loss."""
    table = []
    for (lr, decay), w, b in zip(grid, weight, bias, strict=True):
        logits = x @ w.T + b
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        good = math.isfinite(loss)
        top1 = topk_accuracy(logits, labels, 1) if good else 0.0
        table.append(
            {"lr": lr, "weight_decay": decay, "holdout_top1": top1, "holdout_loss": loss if good else math.inf}
        )
    return table


def _check(train_labels: Tensor, test_labels: Tensor, num_classes: int) -> None:
    if len(train_labels) < 2:
        raise UserError(f"the linear probe needs two labelled training images or more, not {len(train_labels)}")
    if not len(test_labels):
        raise UserError("the linear probe needs labelled test images; there is none")
    for labels in (train_labels, test_labels):
        if labels.min() < 0 or labels.max() >= num_classes:
            raise UserError(f"labels must lie in 0..{num_classes - 1}; found {labels.min()} to {labels.max()}")
