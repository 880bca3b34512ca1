"""The verdict in words: features that are no numbers or have collapsed, and what was added to random weights."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn

from ssl_lightning.core.task import Task
from ssl_lightning.core.words import named_baseline
from ssl_lightning.evaluation.quality import effective_rank, feature_std

ADVICE = {
    "complete": "lower optimizer.base_lr, keep BatchNorm in projector and predictor, keep a teacher's momentum near 1",
    "shrinking": "give the term that keeps the embeddings apart more weight, or lower optimizer.base_lr",
    "dimensional": "make the views differ more, lower temperature or optimizer.base_lr, or enlarge the batch",
}
ALIKE = 1e-3  # of pixels in [0, 1]: images that differ by less are the same to the eye and to a network
LONGER = "train longer (raise trainer.max_epochs)"
LOSS = "train/loss in metrics.csv"
NOT_NAIVE = ("random_init", "start", "from_scratch")  # baselines that are networks
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
    """A sentence where features (N, D) hold NaN or infinity, else ""."""
    bad = ~x.isfinite().all(dim=1)
    if not bad.any():
        return ""
    fix = "lower optimizer.base_lr, check data.mean and data.std, and look at the loss in metrics.csv"
    return f"No verdict: the features of {int(bad.sum())} of {len(x)} {split} {noun}s are not finite; {fix}."


def of(
    found: Mapping[str, Any],
    x: Tensor,
    naive: Callable[[], Tensor] | None = None,
    noun: str = "image",
    task: Task | None = None,
) -> str:
    """What results say, in a sentence or two.

    Args:
        found: `knn_top1`, `linear_top1` and `baselines` as in results.json, or none of these.
        x: finite features (N, D) of the test items.
        naive: gives (N, P), of images their pixels in [0, 1], of the same items; asked only to tell items that are all
            alike from features that are.
        noun: what an item is called.
        task: whose main metric is told; None: top-1 of classes.
    """
    if len(x) < 2:
        return f"No verdict: there is only one test {noun}."
    std, rank = feature_std(x), effective_rank(x)
    kind, scores = diagnose(std, rank), _Scores(found, len(x), task)
    if kind and naive is not None and _are_alike(naive()):
        return f"No verdict: the test {noun}s are all alike."
    what = {
        "complete": f"all {noun}s get nearly the same features (spread {std:.3f}, where 1 is uniform)",
        "dimensional": f"the features vary along few directions (effective rank {rank:.1f} of {x.shape[1]})",
    }.get(kind, "")
    random = scores.against("random_init")
    if kind and not random.better:
        return f"Collapsed: {what}. To prevent it, {ADVICE[kind]}."
    if not random.told:
        worth = "How useful they are is measured with labels, by stage=knn and stage=linear."
        return f"No collapse: the {noun}s get different features. {worth}"
    constant = _constant(found, task)
    if random.better and constant and not any(_better(mine, constant[1], task) for mine in scores.mine.values()):
        beside = f"{named_baseline(constant[0])}: {scores.word(constant[1])}"
        return f"Nothing useful learned: no better than giving every {noun} the same answer ({beside}; {random.told})."
    if random.mixed:
        return f"{_mixed('random weights', random)}{_since_start(scores)}" + (f" Yet {what}." if kind else "")
    if random.better:
        return _above_random(scores, random) + _since_start(scores) + (f" Yet {what}." if kind else "")
    if random.worse:
        fix = f"training has made them worse; lower optimizer.base_lr, and look at the views and at {LOSS}"
        return f"Random weights beat these features ({random.told}): {fix}."
    chance = f"the difference is within chance for {len(x)} test {noun}s"
    return f"No better than random weights ({random.told}; {chance}): {LONGER}, or look at {LOSS}."


def _above_random(scores: "_Scores", random: "_Compared") -> str:
    """Of features that beat random weights: whether they beat the naive ones, too."""
    head = f"These features beat random weights ({random.told})"
    name = next((key for key in scores.baselines if key not in (*NOT_NAIVE, scores.chance)), "")
    naive = scores.against(name)
    if not naive.told:
        return f"{head}."
    called = named_baseline(name)
    if naive.mixed:
        return f"{head}. {_mixed(called, naive)}"
    if naive.better:
        return f"{head} and {called} ({naive.told})."
    if naive.worse:
        beaten = f"Random weights do worse ({random.told})."
        return f"{called.capitalize()} beat these features ({naive.told}): {LONGER}. {beaten}"
    return f"{head}, but are no better than {called} ({naive.told}): {LONGER}."


def _mixed(called: str, compared: "_Compared") -> str:
    """Two measures that say the opposite, each beyond chance."""
    return f"Better than {called} by one measure and worse by the other, both beyond chance ({compared.told})."


def _since_start(scores: "_Scores") -> str:
    """Of a training that began with given weights: what it has added to these."""
    start = scores.against("start")
    if not start.told:
        return ""
    if start.mixed:
        return f" {_mixed(named_baseline('start'), start)}"
    how = "Better than" if start.better else "Worse than" if start.worse else "No better than"
    return f" {how} {named_baseline('start')} ({start.told})."


def _are_alike(naive: Tensor) -> bool:
    return float((naive.amax(0) - naive.amin(0)).max()) < ALIKE


def _constant(found: Mapping[str, Any], task: Task | None) -> tuple[str, float] | None:
    """(name, main metric) of the best constant answer, where it was measured."""
    scores = found.get("baselines", {}).get(task.chance, {}) if task is not None and task.chance else {}
    return (task.chance, scores[task.main]) if task is not None and task.main in scores else None


def _better(mine: float, other: float, task: Task | None) -> bool:
    return mine > other if task is None or task.higher else mine < other


@dataclass(frozen=True)
class _Compared:
    """Features beside one baseline: the figures in words, and whether any is beyond chance."""

    told: str
    better: bool  # some measure is, beyond chance
    worse: bool  # some is worse beyond chance, and none better
    mixed: bool = False  # some is better and some worse, all of these beyond chance


class _Scores:
    """The main metric of what was measured, kNN and linear probe, and of the baselines."""

    def __init__(self, found: Mapping[str, Any], items: int, task: Task | None) -> None:
        self.items, self.task = items, task
        self.main, self.chance = ("top1", "") if task is None else (task.main, task.chance)
        self.word = _percent if task is None else task.word
        self.baselines = found.get("baselines", {})
        self.mine = self._of(found)

    def _of(self, scores: Mapping[str, Any]) -> dict[str, float]:
        named = {name: scores.get(f"{kind}_{self.main}") for kind, name in (("knn", "kNN"), ("linear", "linear"))}
        return {name: value for name, value in named.items() if value is not None}

    def against(self, baseline: str) -> _Compared:
        """What was measured of both; where some of it is beyond chance, that alone is told."""
        other = self._of(self.baselines.get(baseline, {}))
        both = {name: (self.mine[name], other[name]) for name in self.mine if name in other}
        sign = 1 if self.task is None or self.task.higher else -1
        gains = {name: (sign * (mine - its), self._noise(its)) for name, (mine, its) in both.items()}
        better = [name for name, (gain, noise) in gains.items() if gain > noise]
        worse = [name for name, (gain, noise) in gains.items() if gain < -noise]
        shown = {name: f"{name} {self.word(mine)} against {self.word(its)}" for name, (mine, its) in both.items()}
        mixed = bool(better and worse)
        told = ", ".join(shown[name] for name in better or worse or both)
        told += f", but {', '.join(shown[name] for name in worse)}" if mixed else ""
        return _Compared(told, bool(better), bool(worse and not better), mixed)

    def _noise(self, other: float) -> float:
        return share_noise(other, self.items) if self.task is None else self.task.noise(other, self.items)


def against(
    mine: float, other: float, items: int, task: Task, what: str, baselines: Mapping[str, Any] | None = None
) -> str:
    """What a training on labels has brought, in a sentence.

    Args:
        mine, other: the main metric on `items` test items, of it and of the baseline.
        what: the baseline: "random weights", "training from scratch".
        baselines: as in results.json; the best constant answer, where it is among them, has to be beaten, too.
    """
    told = f"{task.word(mine)} against {task.word(other)}"
    constant = _constant({"baselines": baselines or {}}, task)
    if constant and not _better(mine, constant[1], task):
        beside = f"{named_baseline(constant[0])}: {task.word(constant[1])}"
        return f"Nothing useful learned: no better than the same answer for all ({beside}; {what}: {told})."
    gain, noise = (1 if task.higher else -1) * (mine - other), task.noise(other, items)
    naive = _naive_beats(mine, items, task, baselines or {})
    if gain > noise:
        return f"Better than {what}: {told}.{naive}"
    if gain < -noise:
        return f"Worse than {what}: {told}.{naive}"
    return f"No better than {what}: {told}, a difference within chance for {items} test items.{naive}"


def _naive_beats(mine: float, items: int, task: Task, baselines: Mapping[str, Any]) -> str:
    """A sentence where the same labels do better on the naive features, beyond chance; else ""."""
    for name, scores in baselines.items():
        if name in (*NOT_NAIVE, task.chance) or not isinstance(scores, Mapping):
            continue
        other = next((value for key, value in scores.items() if key.endswith(f"_{task.main}")), None)
        if (
            isinstance(other, int | float)
            and _better(other, mine, task)
            and abs(other - mine) > task.noise(other, items)
        ):
            return f" A linear probe on {named_baseline(name)} does better, with {task.word(other)}: pretrain longer."
    return ""


def share_noise(share: float, items: int) -> float:
    """How far two shares of so many items may lie apart by chance."""
    return 2 * math.sqrt(max(share * (1 - share), 0.25 / items) / items)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def of_weights(network: nn.Module, begun: nn.Module) -> str:
    """A sentence where a trained network holds what is no number, or has not moved from where it began; else "".

    A shrinking of all weights alike, which weight decay makes without any gradient, is no movement.
    """
    old = dict(begun.named_parameters())
    product = mine = other = 0.0
    for name, value in chain(network.named_parameters(), network.named_buffers()):
        if value.is_floating_point() and not value.isfinite().all():
            return f"No verdict: the trained weights are not finite ('{name}'); lower optimizer.base_lr."
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
        f"The weights have not moved (they turned by {turned:.0e} of their length): the gradients were zero or not "
        "finite, or the learning rate far too small; look at train/grad_norm in metrics.csv."
    )
