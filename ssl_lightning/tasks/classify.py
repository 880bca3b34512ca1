"""task=classify: one class for each item. Cross-entropy; top-1 and, of more than five classes, top-5."""

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Reduction, Task
from ssl_lightning.tasks.metrics import Top


class Classify(Task):
    """Classes (B,) int64 in 0..K-1, -1 where there is none; outputs are logits (B, K)."""

    main = "top1"
    beside = ("top1",)
    bounded = True

    @classmethod
    def of(cls, classes: Sequence[str] | int) -> Self:
        """Prepared for these classes, or for as many that have no names."""
        return cls().prepare([str(i) for i in range(classes)] if isinstance(classes, int) else classes, None)

    def check(self, targets: Tensor, split: str, noun: str) -> None:
        count = len(self.names)
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < count:
            raise UserError(f"labels must lie in 0..{count - 1}; found {targets.min()} to {targets.max()}")

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0, reduction: Reduction = "mean") -> Tensor:
        """Cross-entropy. `smoothing`: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7."""
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction=reduction)

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """softmax - onehot."""
        found = outputs.softmax(dim=2)
        found[torch.arange(len(found), device=found.device), :, targets] -= 1
        return found

    def metrics(self) -> MetricCollection:
        return MetricCollection({"top1": Top(1), **({"top5": Top(5)} if len(self.names) > 5 else {})})

    def outputs_of(self, means: Tensor) -> Tensor:
        """Log shares of the classes."""
        return means.clamp_min(torch.finfo(means.dtype).tiny).log()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The softmax of the outputs."""
        return outputs.double().softmax(dim=1)

    def predict(self, outputs: Tensor) -> list[dict[str, Any]]:
        """The likeliest class, of equal ones the first, and its probability."""
        shares, best = self.probabilities(outputs).max(dim=1).values, outputs.argmax(dim=1)
        rows = zip(best.tolist(), shares.tolist(), strict=True)
        return [{"class": self.names[label], "probability": share} for label, share in rows]
