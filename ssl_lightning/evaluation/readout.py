"""What a linear readout of frozen features tells of a known factor: ridge regression in closed form."""

from collections.abc import Mapping, Sequence
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


def read_factors(
    train_x: Tensor, train: Mapping[str, Tensor], test_x: Tensor, test: Mapping[str, Tensor], seed: int = 0
) -> dict[str, Readout]:
    """Ridge regression from features (N, D) to each factor, its penalty chosen on a fifth of the training items.

    Args:
        train_x, test_x: (N, D), (M, D).
        train, test: of each factor float (N,) or (N, K), numbers; or int64 (N,), classes, which are read by least
            squares on one-hot rows.
        seed: of the split.
    """
    counts = {name: _classes(train[name], test[name]) for name in train}
    targets = [_target(train[name], count) for name, count in counts.items()]
    widths = [target.shape[1] for target in targets]
    x, y = train_x.double(), torch.cat(targets, 1)
    mean, std = x.mean(0), x.std(0)
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, torch.ones_like(std))
    x, other = (x - mean) / std, (test_x.double() - mean) / std
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held, kept = order.tensor_split([max(1, round(HOLDOUT * len(x)))])
    tried = [found.split(widths, 1) for found in _solved(x[kept], y[kept], x[held], RIDGES)]
    wanted = y[held].split(widths, 1)
    errors = [[float((found[i] - wanted[i]).square().mean()) for found in tried] for i in range(len(widths))]
    best = [RIDGES[min(range(len(RIDGES)), key=one.__getitem__)] for one in errors]
    used = sorted(set(best))
    said = dict(zip(used, _solved(x, y, other, used), strict=True))
    outputs = {name: said[best[i]].split(widths, 1)[i] for i, name in enumerate(train)}
    return {name: _scored(outputs[name], test[name], train[name], counts[name]) for name in train}


def _classes(train: Tensor, test: Tensor) -> int:
    """Of a factor that is a class, how many there are; 0 of numbers."""
    return 0 if train.is_floating_point() else int(max(train.max(), test.max())) + 1


def _target(values: Tensor, classes: int) -> Tensor:
    return F.one_hot(values, classes).double() if classes else values.double().view(len(values), -1)


def _scored(found: Tensor, test: Tensor, train: Tensor, classes: int) -> Readout:
    if classes:
        most = float((test == train.mode().values).double().mean())
        return Readout(float((found.argmax(1) == test).double().mean()), most)
    wanted = _target(test, 0)
    total = (wanted - wanted.mean(0)).square().sum(0)
    return Readout(float((1 - (wanted - found).square().sum(0) / total.clamp(min=1e-12)).mean()), 0.0)


def _solved(x: Tensor, y: Tensor, other: Tensor, ridges: Sequence[float]) -> list[Tensor]:
    """What ridge regression on x (N, D), y (N, K) says of `other` (M, D): (M, K) for each penalty."""
    shift, mean = x.mean(0), y.mean(0)
    centred, eye = x - shift, torch.eye(x.shape[1], dtype=x.dtype)
    square, both = centred.T @ centred / len(x), centred.T @ (y - mean) / len(x)
    weights = [torch.cholesky_solve(both, torch.linalg.cholesky(square + ridge * eye)) for ridge in ridges]
    return [(other - shift) @ weight + mean for weight in weights]
