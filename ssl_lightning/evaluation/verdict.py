"""The verdict in words: features that are no numbers or have collapsed, and what was added to random weights."""

import math
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn

from ssl_lightning.core.task import Task
from ssl_lightning.evaluation.quality import effective_rank, feature_std

ADVICE = {
    "complete": "lower optimizer.base_lr, keep BatchNorm in projector and predictor, keep a teacher's momentum near 1",
    "shrinking": "give the term that keeps the embeddings apart more weight, or lower optimizer.base_lr",
    "dimensional": "make the views differ more, lower temperature or optimizer.base_lr, or enlarge the batch",
}
ALIKE = 1e-3  # of pixels in [0, 1]: images that differ by less are the same to the eye and to a network
STILL = 1e-6  # share of its length by which a network has turned; a run of a few steps turns it by thousandths


def diagnose(
    std: float, rank: float, scale: float = 1.0, min_std: float = 0.1, min_rank: float = 2.0, min_scale: float = 0.05
) -> str:
    """ "complete", "shrinking", "dimensional", or "" for healthy, from spread (1 = uniform), effective rank, and scale
    (1 = that of the first look)."""
    if std < min_std:
        return "complete"
    if scale < min_scale:
        return "shrinking"
    return "dimensional" if rank < min_rank else ""


def not_finite(x: Tensor, split: str, noun: str = "image") -> str:
    """A line where features (N, D) hold NaN or infinity, else ""."""
    bad = ~x.isfinite().all(dim=1)
    if not bad.any():
        return ""
    fix = "look at its loss and gradients in metrics.csv, lower the rate, and check data.mean and data.std"
    return f"no verdict: the features of {int(bad.sum())} of {len(x)} {split} {noun}s are not finite; {fix}"


def of(
    found: Mapping[str, Any],
    x: Tensor,
    naive: Callable[[], Tensor] | None = None,
    noun: str = "image",
    task: Task | None = None,
) -> str:
    """What results say, in a line.

    Args:
        found: `knn_top1`, `linear_top1` and `baselines` as in results.json, or none of these.
        x: finite features (N, D) of the test items.
        naive: gives (N, P), of images their pixels in [0, 1], of the same items; asked only to tell items that are all
            alike from features that are.
        noun: what an item is called.
        task: whose main metric is told; None: top-1 of classes.
    """
    if len(x) < 2:
        return f"no verdict: there is one test {noun}"
    std, rank = feature_std(x), effective_rank(x)
    kind, gains = diagnose(std, rank), _gains(found, len(x), task)
    if kind and naive is not None and _are_alike(naive()):
        return f"no verdict: the test {noun}s are all alike"
    what = {
        "complete": f"all {noun}s get nearly the same features (spread {std:.3f}, where 1 is uniform)",
        "dimensional": f"the features vary along few directions (effective rank {rank:.1f} of {x.shape[1]})",
    }.get(kind, "")
    if kind and not any(gain > 0 for *_, gain in gains):
        return f"collapsed: {what}; {ADVICE[kind]}"
    if not gains:
        return f"no collapse: the {noun}s get different features; labels would tell what these are worth"
    word = _percent if task is None else task.word
    told = ", ".join(f"{name} {word(mine)} against {word(random)}" for name, mine, random, _ in gains)
    if any(gain > 0 for *_, gain in gains):
        if (least := _constant(found, task)) and not any(_better(mine, least[1], task) for _, mine, *_ in gains):
            return _no_better(least, told, word)
        return f"above random weights: {told}" + (f"; yet {what}" if kind else "")
    return f"nothing learned that shows: not above random weights ({told}); train longer, or look at metrics.csv"


def _are_alike(naive: Tensor) -> bool:
    return float((naive.amax(0) - naive.amin(0)).max()) < ALIKE


def _constant(found: Mapping[str, Any], task: Task | None) -> tuple[str, float] | None:
    """(name, main metric) of the best constant answer, where it was measured."""
    scores = found.get("baselines", {}).get(task.chance, {}) if task is not None and task.chance else {}
    return (task.chance, scores[task.main]) if task is not None and task.main in scores else None


def _no_better(least: tuple[str, float], told: str, word: Callable[[float], str]) -> str:
    return f"nothing learned that shows: no better than the same answer for all, {least[0]} {word(least[1])} ({told})"


def _better(mine: float, other: float, task: Task | None) -> bool:
    return mine > other if task is None or task.higher else mine < other


def _gains(found: Mapping[str, Any], items: int, task: Task | None = None) -> list[tuple[str, float, float, float]]:
    """(measure, its value, that of random weights, how far it lies above the noise of so many items)."""
    random, gains = found.get("baselines", {}).get("random_init", {}), []
    main, sign = ("top1", 1) if task is None else (task.main, 1 if task.higher else -1)
    for kind, name in (("knn", "kNN"), ("linear", "linear")):
        mine, other = found.get(f"{kind}_{main}"), random.get(f"{kind}_{main}")
        if mine is not None and other is not None:
            noise = share_noise(other, items) if task is None else task.noise(other, items)
            gains.append((name, mine, other, sign * (mine - other) - noise))
    return gains


def against(
    mine: float, other: float, items: int, task: Task, what: str, baselines: Mapping[str, Any] | None = None
) -> str:
    """What a training on labels has brought, in a line.

    Args:
        mine, other: the main metric on `items` test items, of it and of the baseline.
        what: the baseline: "random weights", "training from scratch".
        baselines: as in results.json; the best constant answer, where it is among them, has to be beaten, too.
    """
    told = f"{task.word(mine)} against {task.word(other)}"
    least = _constant({"baselines": baselines or {}}, task)
    if least and not _better(mine, least[1], task):
        return _no_better(least, f"{what}: {told}", task.word)
    gain = (1 if task.higher else -1) * (mine - other)
    return f"above {what}: {told}" if gain > task.noise(other, items) else f"not above {what} ({told})"


def share_noise(share: float, items: int) -> float:
    """How far two shares of so many items may lie apart by chance."""
    return 2 * math.sqrt(max(share * (1 - share), 0.25 / items) / items)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def of_weights(network: nn.Module, begun: nn.Module) -> str:
    """A line where a trained network holds what is no number, or has not moved from where it began; else "".

    A shrinking of all weights alike, which weight decay makes without any gradient, is no movement.
    """
    old = dict(begun.named_parameters())
    product = mine = other = 0.0
    for name, value in chain(network.named_parameters(), network.named_buffers()):
        if value.is_floating_point() and not value.isfinite().all():
            return f"no verdict: the trained weights are not finite ('{name}'); lower optimizer.base_lr"
    for name, value in network.named_parameters():
        if name not in old or old[name].shape != value.shape:  # a strategy holds it in another form
            return ""
        if value.ndim > 1 and value.requires_grad:
            a, b = value.detach().double().flatten().cpu(), old[name].detach().double().flatten().cpu()
            product, mine, other = product + float(a @ b), mine + float(a @ a), other + float(b @ b)
    if not mine or not other:
        return ""
    turned = math.sqrt(max(0.0, 2 - 2 * product / math.sqrt(mine * other)))  # of unit vectors
    if turned >= STILL:
        return ""
    return (
        f"the weights have not moved (turned by {turned:.0e} of their length): the gradients were zero or not finite, "
        "or the rate far too small; look at train/grad_norm in metrics.csv"
    )
