"""The tasks' losses and metrics as loops over items and labels, in plain Python: what the equations are held to."""

import math

from torch import Tensor


def squared(outputs: Tensor, targets: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """Mean over items and targets of the squared error in standard deviations."""
    total = outputs.new_zeros(())
    for i in range(len(outputs)):
        for t in range(len(mean)):
            total = total + (outputs[i, t] - (targets[i, t] - mean[t]) / std[t]) ** 2
    return total / (len(outputs) * len(mean))


def binary(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over items and labels of the binary cross-entropy with smoothed targets."""
    total = outputs.new_zeros(())
    for i in range(outputs.shape[0]):
        for label in range(outputs.shape[1]):
            y = float(targets[i, label]) * (1 - smoothing) + smoothing / 2
            p = 1 / (1 + (-outputs[i, label]).exp())
            total = total - y * p.log() - (1 - y) * (1 - p).log()
    return total / outputs.numel()


def cross_entropy(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over items of the cross-entropy with smoothed targets."""
    total, classes = outputs.new_zeros(()), outputs.shape[1]
    for i in range(len(outputs)):
        below = outputs[i].exp().sum()
        for c in range(classes):
            y = (1 - smoothing) * (c == int(targets[i])) + smoothing / classes
            total = total - y * (outputs[i, c].exp() / below).log()
    return total / len(outputs)


def r2(found: Tensor, targets: Tensor) -> float:
    """Of numbers (N, T) in their own units, the mean over targets."""
    scores = []
    for t in range(targets.shape[1]):
        y, p = targets[:, t].tolist(), found[:, t].tolist()
        mean = sum(y) / len(y)
        scores.append(1 - sum((a - b) ** 2 for a, b in zip(y, p)) / sum((a - mean) ** 2 for a in y))
    return sum(scores) / len(scores)


def mae(found: Tensor, targets: Tensor) -> float:
    pairs = list(zip(found.flatten().tolist(), targets.flatten().tolist()))
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def rmse(found: Tensor, targets: Tensor) -> float:
    pairs = list(zip(found.flatten().tolist(), targets.flatten().tolist()))
    return math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs))


def average_precision(outputs: Tensor, targets: Tensor) -> float:
    """Mean over the labels that some item has: the precision at each of its items, in the order of the outputs."""
    scores = []
    for label in range(targets.shape[1]):
        order = sorted(range(len(targets)), key=lambda i: -float(outputs[i, label]))
        hits, precisions = 0, []
        for rank, i in enumerate(order, 1):
            if targets[i, label] == 1:
                hits += 1
                precisions.append(hits / rank)
        if precisions:
            scores.append(sum(precisions) / len(precisions))
    return sum(scores) / len(scores)


def macro_f1(outputs: Tensor, targets: Tensor) -> float:
    """Mean over the labels that some item has: F1 of outputs above 0."""
    scores = []
    for label in range(targets.shape[1]):
        said = [float(outputs[i, label]) > 0 for i in range(len(outputs))]
        true = [float(targets[i, label]) == 1 for i in range(len(outputs))]
        if any(true):
            both = sum(a and b for a, b in zip(said, true))
            scores.append(2 * both / (sum(said) + sum(true)))
    return sum(scores) / len(scores)
