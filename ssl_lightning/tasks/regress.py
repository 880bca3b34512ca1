"""task=regress: one number for each item, or several. Squared error of standardised targets; R2, MAE and RMSE."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Reads, Reduction, Task
from ssl_lightning.tasks.metrics import R2


class Regress(Task):
    """Targets (B, T) float32 in their own units, NaN in the rows of items without; outputs (B, T) are standardised.

    Mean and standard deviation of the training targets are buffers: they are saved with the network. All metrics are in
    the targets' own units; R2 is the mean over the T targets, and 0 for an answer that is always the mean.
    """

    main, worst, chance = "r2", -float("inf"), "train_mean"
    reads: ClassVar[Reads] = "numbers"
    takes = "numbers"
    mean: Tensor
    std: Tensor
    constant: tuple[str, ...] = ()  # the targets that are the same number in all training items

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("std", torch.ones(0))

    def prepare(self, names: Sequence[str], targets: Tensor) -> Self:
        self.names = tuple(names)
        self.mean = targets.double().mean(dim=0).float()
        std = targets.double().std(dim=0, correction=0).float()
        varies = std > 1e-6 * self.mean.abs()
        self.std = torch.where(varies, std, torch.ones_like(std))  # a constant target stays 0
        self.constant = tuple(name for name, some in zip(self.names, varies.tolist(), strict=True) if not some)
        return self

    def check(self, targets: Tensor, split: str, noun: str) -> None:
        if targets.ndim != 2 or targets.shape[1] != len(self.names) or not bool(targets.isfinite().all()):
            wanted = f"{len(self.names)} finite number{'s' * (len(self.names) != 1)}"
            raise UserError(f"task=regress takes {wanted} for each {split} {noun}; check data.labels")
        if self.constant and split == "training" and len(targets) > 1:
            fix = f"choose other columns than '{self.constant[0]}' with data.label_column=NAME, or give more labels"
            raise UserError(f"all labelled training {noun}s have the same number, so nothing can be learned: {fix}")

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0, reduction: Reduction = "mean") -> Tensor:
        """Mean over targets of the squared error, in standard deviations of the training set."""
        if smoothing:
            raise UserError("label smoothing is of classes, and task=regress has none; set stage.label_smoothing=0")
        error = (outputs - self.outputs_of(targets.to(outputs.dtype))).square().mean(dim=1)  # (B,)
        return error.mean() if reduction == "mean" else error.sum()

    def metrics(self) -> MetricCollection:
        found = MetricCollection(
            {"r2": R2(self.mean, self.std), "mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False)},
            compute_groups=False,
        )
        return found.set_dtype(torch.float64)

    def measurable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Both in the targets' own units."""
        return self.numbers(outputs.double()), targets.double()

    def numbers(self, outputs: Tensor) -> Tensor:
        """Outputs (B, T) -> the targets' own units."""
        return outputs * self.std.to(outputs) + self.mean.to(outputs)

    def outputs_of(self, means: Tensor) -> Tensor:
        """Targets (B, T) in their own units -> standardised."""
        return (means - self.mean.to(means)) / self.std.to(means)

    def noise(self, value: float, count: int) -> float:
        """Two standard errors of R2, by its asymptotic variance 4 R2 (1 - R2)^2 / n, of 1 / n at least."""
        share = min(max(value, 0.0), 1.0)
        return float(2 * (max(4 * share * (1 - share) ** 2, 1 / count) / count) ** 0.5)

    def word(self, value: float) -> str:
        return f"R2 {value:.3f}"

    def predict(self, outputs: Tensor) -> list[dict[str, Any]]:
        """The numbers, by name, in the targets' own units."""
        return super().predict(self.numbers(outputs))
