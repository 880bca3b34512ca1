"""A task of a user's own, in ten lines: counts, by the Poisson likelihood. The package knows nothing of it."""

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MetricCollection

from ssl_lightning.core import task


class Counts(task.Task):
    main, higher, worst, reads, takes = "mae", False, float("inf"), "numbers", "counts"

    def loss(
        self, outputs: Tensor, targets: Tensor, smoothing: float = 0, reduction: task.Reduction = "mean"
    ) -> Tensor:
        return F.poisson_nll_loss(outputs, targets.to(outputs.dtype), reduction=reduction)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"mae": MeanAbsoluteError()})

    def measurable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return outputs.exp(), targets
