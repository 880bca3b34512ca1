"""What a linear readout of frozen features tells of a known factor: ridge regression in closed form."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # penalties that are tried, for features of unit variance
HOLDOUT = 0.2  # of the training items, on which the penalty is chosen


@dataclass(frozen=True)
class Readout:
    """How well one factor is read on the test items.

    Attributes:
        score: R2 (of several numbers their mean), or accuracy of a class, a fraction.
        chance: the score of the best constant answer: 0, or the share of the most frequent class.
    """

    score: float
    chance: float

    @property
    def kept(self) -> float:
        """From 0, no better than a constant, to 1, perfect; R2 as it is, accuracy by what there is above chance."""
        return max(0.0, (self.score - self.chance) / (1 - self.chance)) if self.chance < 1 else 0.0


def read_factor(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, seed: int = 0) -> Readout:
    """Ridge regression from features (N, D) to a factor, its penalty chosen on a fifth of the training items.

    Args:
        train_x, test_x: (N, D), (M, D).
        train_y, test_y: float (N,) or (N, K), numbers; or int64 (N,), classes, read by least squares on one-hot rows.
        seed: of the split.
    """
    classes = not train_y.is_floating_point()
    count = int(max(train_y.max(), test_y.max())) + 1 if classes else 0
    target = F.one_hot(train_y, count).double() if classes else train_y.double().view(len(train_y), -1)
    x = train_x.double()
    mean, std = x.mean(0), x.std(0)
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, torch.ones_like(std))
    x, other = (x - mean) / std, (test_x.double() - mean) / std
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held, kept = order.tensor_split([max(1, round(HOLDOUT * len(x)))])
    tried = _solved(x[kept], target[kept], x[held])
    errors = [float((found - target[held]).square().mean()) for found in tried]
    found = _solved(x, target, other)[min(range(len(errors)), key=errors.__getitem__)]
    if classes:
        most = float((test_y == train_y.mode().values).double().mean())
        return Readout(float((found.argmax(1) == test_y).double().mean()), most)
    wanted = test_y.double().view(len(test_y), -1)
    total = (wanted - wanted.mean(0)).square().sum(0)
    parts = 1 - (wanted - found).square().sum(0) / total.clamp(min=1e-12)
    return Readout(float(parts.mean()), 0.0)


def _solved(x: Tensor, y: Tensor, other: Tensor) -> list[Tensor]:
    """What ridge regression on x (N, D), y (N, K) says of `other` (M, D), (M, K) for each of RIDGES."""
    shift, mean = x.mean(0), y.mean(0)
    centred = x - shift
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    inner, outer = vectors.T @ (centred.T @ (y - mean) / len(x)), (other - shift) @ vectors
    values = values.clamp(min=0)[:, None]
    return [outer @ (inner / (values + ridge)) + mean for ridge in RIDGES]
