"""task=classify: one class for each item. Cross-entropy; top-1 and, of more than five classes, top-5.

Of a test also the mean over classes of accuracy, F1 and the area under the ROC curve: a rare class counts as much as a
frequent one.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Reduction, Task
from ssl_lightning.tasks.metrics import Top, macro_auroc, macro_f1, mean_of


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

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        smoothing: float = 0.0,
        reduction: Reduction = "mean",
        weights: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy. `smoothing`: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7.

        `weights` (K,): what an item of each class counts for. The mean is over items, not over weights, so that ranks
        that hold other classes add up to what one process has.
        """
        if weights is None:
            return F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction=reduction)
        each = F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction="none")  # (B,)
        each = each * weights.to(each)[targets]
        return each.mean() if reduction == "mean" else each.sum()

    def weights(self, targets: Tensor) -> Tensor:
        """(K,), N / (present classes x items of the class), 1 on average over items; 0 of a class without any."""
        counts = targets.bincount(minlength=len(self.names)).double()
        share = len(targets) / ((counts > 0).sum() * counts.clamp(min=1))
        return torch.where(counts > 0, share, 0.0).float()

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """softmax - onehot."""
        found = outputs.softmax(dim=2)
        found[torch.arange(len(found), device=found.device), :, targets] -= 1
        return found

    def metrics(self) -> MetricCollection:
        return MetricCollection({"top1": Top(1), **({"top5": Top(5)} if len(self.names) > 5 else {})})

    def details(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """`balanced_accuracy`, `macro_f1` and `auroc` (one against the rest), means over classes that some item has."""
        outputs, targets = outputs.double().cpu(), targets.cpu()
        return {
            "balanced_accuracy": mean_of(self.per_class(outputs, targets).values()),
            "macro_f1": macro_f1(outputs.argmax(dim=1), targets, len(self.names)),
            "auroc": macro_auroc(outputs.softmax(dim=1), targets),
        }

    def per_class(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        right, targets = outputs.argmax(dim=1).cpu() == targets.cpu(), targets.cpu()
        present = [label for label in range(len(self.names)) if bool((targets == label).any())]
        return {self.names[label]: right[targets == label].double().mean().item() for label in present}

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
