"""task=multilabel: any of several labels for each item. Binary cross-entropy; mean average precision and macro F1."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Reads, Reduction, Task
from ssl_lightning.tasks.metrics import MacroF1, MeanAveragePrecision


class MultiLabel(Task):
    """Targets (B, L) float32 of 0 and 1, NaN in the rows of items without; outputs are logits (B, L).

    A label that no test item has counts in neither metric: it has no precision. The best constant answer is the
    frequency of each label in the training set.
    """

    main, chance = "map", "class_frequencies"
    reads: ClassVar[Reads] = "several"
    takes = "several labels"
    bounded = True

    def check(self, targets: Tensor, split: str, noun: str) -> None:
        if (
            targets.ndim != 2
            or targets.shape[1] != len(self.names)
            or not bool(((targets == 0) | (targets == 1)).all())
        ):
            raise UserError(f"task=multilabel takes 0 or 1 of {len(self.names)} labels for each {split} {noun}")
        if not bool(targets.any()):
            raise UserError(f"no {split} {noun} has any of the labels; check data.labels")

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        smoothing: float = 0.0,
        reduction: Reduction = "mean",
        weights: Tensor | None = None,
    ) -> Tensor:
        """Mean over labels of the binary cross-entropy; `smoothing` draws 0 and 1 towards 1/2 by that share.

        `weights` (L,): what an item that has a label counts for, against 1 for one that has not.
        """
        targets = targets.to(outputs.dtype) * (1 - smoothing) + smoothing / 2
        more = None if weights is None else weights.to(outputs)
        error = F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=more, reduction="none")  # (B, L)
        error = error.mean(dim=1)
        return error.mean() if reduction == "mean" else error.sum()

    def weights(self, targets: Tensor) -> Tensor:
        """(L,), items without a label for each that has it; 1 of a label that none, or each, has."""
        having = (targets == 1).sum(dim=0).double()
        share = (len(targets) - having) / having.clamp(min=1)
        return torch.where((having > 0) & (having < len(targets)), share, 1.0).float()

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(sigmoid - target) / L."""
        return (outputs.sigmoid() - targets[:, None].to(outputs.dtype)) / outputs.shape[2]

    def metrics(self) -> MetricCollection:
        count = len(self.names)
        return MetricCollection({"map": MeanAveragePrecision(count), "macro_f1": MacroF1(count)}, compute_groups=False)

    def measurable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities, float64, and 0 or 1: torchmetrics would take a batch of logits between 0 and 1 as they are."""
        return outputs.double().sigmoid(), targets.long()

    def outputs_of(self, means: Tensor) -> Tensor:
        """The logits of shares of 1 (B, L)."""
        return torch.logit(means, eps=1e-6)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The sigmoid of each output."""
        return outputs.double().sigmoid()

    def predict(self, outputs: Tensor) -> list[dict[str, Any]]:
        """The probability of each label."""
        return super().predict(self.probabilities(outputs))
