"""What torchmetrics has in another form: exact shares, R2 of targets of any size, labels that are absent left out."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, R2Score
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, multiclass_f1_score
from torchmetrics.utilities import dim_zero_cat


class Top(Metric):
    """The share of items whose class is among the k largest outputs, in 0..1, as a float64 quotient.

    Args:
        k: how many of the largest count; 1 takes the first of equal ones.
    """

    is_differentiable, higher_is_better, full_state_update = False, True, False
    correct: Tensor
    total: Tensor

    def __init__(self, k: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k
        for name in ("correct", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Outputs (B, K) and classes (B,) in 0..K-1."""
        best = outputs.argmax(dim=1, keepdim=True) if self.k == 1 else outputs.topk(self.k, dim=1).indices
        self.correct += (best == targets[:, None]).sum()
        self.total += len(targets)

    def compute(self) -> Tensor:
        return torch.tensor(self.correct.item() / max(self.total.item(), 1), dtype=torch.float64)


class R2(R2Score):
    """The share of the variance that is explained, the mean over T targets; NaN of fewer than two items.

    torchmetrics takes sums of squares below 1e-4 for 0, so it is given standardised values.

    Args:
        mean, std: (T,), of the targets.
    """

    def __init__(self, mean: Tensor, std: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift, self.scale = mean.double().cpu(), std.double().cpu()

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Predictions and targets (B, T), float64, on the CPU."""
        super().update((preds - self.shift) / self.scale, (target - self.shift) / self.scale)

    def compute(self) -> Tensor:
        return super().compute() if self.total >= 2 else torch.tensor(torch.nan)  # type: ignore[operator]


class MeanAveragePrecision(MultilabelAveragePrecision):
    """The mean over labels of the average precision; a label that no item has is left out. NaN where none has any."""

    def __init__(self, num_labels: int, **kwargs: Any) -> None:
        super().__init__(num_labels, average="none", **kwargs)

    def compute(self) -> Tensor:  # type: ignore[override]
        preds, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)  # (N, L), probabilities and 0 or 1
        present = [label for label in range(self.num_labels) if bool((target[:, label] == 1).any())]
        found = [binary_average_precision(preds[:, label], target[:, label]) for label in present]
        return torch.stack(found).mean() if found else torch.tensor(torch.nan)


class MacroF1(MultilabelF1Score):
    """The mean over labels of F1 at a probability of 1/2; a label that no item has is left out."""

    def __init__(self, num_labels: int, **kwargs: Any) -> None:
        super().__init__(num_labels, average="none", **kwargs)

    def compute(self) -> Tensor:
        scores, tp, fn = super().compute().view(-1), torch.as_tensor(self.tp), torch.as_tensor(self.fn)
        return scores[(tp + fn).view(-1) > 0].mean()


def mean_of(values: Iterable[float]) -> float:
    """Their mean; NaN of none."""
    found = list(values)
    return sum(found) / len(found) if found else float("nan")


def macro_f1(predicted: Tensor, targets: Tensor, classes: int) -> float:
    """The mean of F1 over the classes that some item has. `predicted` and `targets` (N,) in 0..classes-1."""
    scores = multiclass_f1_score(predicted, targets, classes, average="none")  # (K,)
    return mean_of(scores[targets.unique()].tolist())


def macro_auroc(shares: Tensor, targets: Tensor) -> float:
    """The mean over classes of the area under the ROC curve, each against the rest; of classes that some items have and
    others have not. Probabilities (N, K) and classes (N,)."""
    present = [label for label in targets.unique().tolist() if bool((targets != label).any())]
    return mean_of(binary_auroc(shares[:, label], (targets == label).long()).item() for label in present)
