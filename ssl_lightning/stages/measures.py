"""What `stage=quality` measures of a network, and how its measures agree with kNN and linear probe."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.task import Task
from ssl_lightning.core.words import measure as heading
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.sampler import Request, permutation
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.evaluation.judge import BOTH, judge
from ssl_lightning.evaluation.label_free import FEW, alpha_req, kendall, least_correlation, lidar, spearman, two_nn
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.evaluation.quality import alignment, effective_rank, feature_std, rankme, uniformity
from ssl_lightning.evaluation.verdict import not_finite
from ssl_lightning.stages.kept_features import Cache, features_of

# Of each measure its name, and what is better: 1 more, -1 less, 0 nearest to 1.
MEASURES: dict[str, tuple[str, int]] = {
    "rankme": ("RankMe", 1),
    "effective_rank": ("effective rank", 1),
    "alpha_req": ("alpha-ReQ", 0),
    "lidar": ("LiDAR", 1),
    "alignment": ("alignment", -1),
    "uniformity": ("uniformity", -1),
    "feature_std": ("spread", 1),
    "two_nn": ("intrinsic dimension", 1),
}
WAYS = {1: "", -1: " (less is better)", 0: " (near 1 is better)"}
OF_TEST: dict[str, Callable[[Tensor], float]] = {
    "rankme": rankme,
    "effective_rank": effective_rank,
    "alpha_req": alpha_req,
    "uniformity": uniformity,
    "feature_std": feature_std,
}
MOST_ROWS = 5000  # whose distances are taken for the intrinsic dimension


@torch.no_grad()
def views_of(network: nn.Module, data: DataModule, items: int, count: int, device: torch.device) -> Tensor | None:
    """Features (N, count, D) of training views of at most so many training items; None where no views are drawn.

    Views of several epochs where one has too few, so they are those that a training would see. Every rank draws all.
    """
    if data.views is None or data.global_count < 1:
        return None
    rows = permutation(len(data.train_set), "quality", data.seed)[:items].sort().values
    fetch, found = data.train_fetch(data.train_set), list[Tensor]()
    whole = torch.ones(len(rows), dtype=torch.bool)
    with evaluating(network):
        for epoch in range(-(-count // data.global_count)):
            parts = list[Tensor]()
            for some in rows.split(data.batch_size):
                raw = data.transfer_batch_to_device(fetch[Request(epoch, some)], device, 0)
                batch = data.on_after_batch_transfer(raw)
                parts.append(torch.stack([network(view.to(device)).float().cpu() for view in batch.global_views], 1))
                whole[torch.isin(rows, some)] &= batch.indices.cpu() == some  # a broken file was replaced
            found.append(torch.cat(parts))
    return torch.cat(found, 1)[whole, :count]


def measured(
    network: nn.Module,
    views: Tensor | None,
    data: DataModule,
    task: Task | None,
    device: torch.device,
    k: int,
    temperature: float,
    probe: ProbeSettings | None,
    cache: Cache,
) -> dict[str, float | None]:
    """All measures of a network, None for what cannot be computed, and with a task its kNN and linear probe."""
    test = features_of(network, data, "test", None, device, cache)
    if not_finite(test.x, "test"):
        return dict.fromkeys(MEASURES)
    found: dict[str, float | None] = {name: _tried(function, test.x) for name, function in OF_TEST.items()}
    found["two_nn"] = _tried(two_nn, _some(test.x))
    pairs = None if views is None else list(combinations(range(views.shape[1]), 2))
    finite = views is not None and bool(views.isfinite().all())
    found["alignment"] = found["lidar"] = None
    if views is not None and pairs and finite:
        each = [alignment(views[:, one], views[:, other]) for one, other in pairs]
        found["alignment"], found["lidar"] = sum(each) / len(each), _tried(lidar, views)
    ordered = {name: found[name] for name in MEASURES}
    if task is None:
        return ordered
    train = features_of(network, data, "train", data.labelled_indices("train"), device, cache)
    what = BOTH if probe is not None else BOTH[:1]
    scores = judge(train, test, copy.deepcopy(task), k, temperature, probe, device, what)
    return {key: scores.get(key) for key in keys(task) if key in scores} | ordered


def keys(task: Task) -> list[str]:
    """Of kNN and linear probe, the main metric."""
    return [f"{kind}_{task.main}" for kind in BOTH]


def _some(x: Tensor) -> Tensor:
    return x[:: max(1, -(-len(x) // MOST_ROWS))]


def _tried(function: Callable[[Tensor], float], x: Tensor) -> float | None:
    try:
        value = function(x)
    except (RuntimeError, ValueError):  # too few items, say
        return None
    return value if math.isfinite(value) else None


# ---- do they agree? --------------------------------------------------------------------------------------------------


def agreement(rows: Sequence[Mapping[str, Any]], task: Task | None) -> dict[str, dict[str, dict[str, float]]]:
    """{measure: {score: {spearman, kendall, n}}} over the checkpoints that have both; positive: they order alike."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for score in keys(task) if task is not None else ():
        sign = 1 if task is None or task.higher else -1
        for name, (_, way) in MEASURES.items():
            pairs = [(row.get(name), row.get(score)) for row in rows]
            both = [(better(a, way), sign * b) for a, b in pairs if a is not None and b is not None]
            if len(both) < 2:
                continue
            x, y = [a for a, _ in both], [b for _, b in both]
            values = {"spearman": spearman(x, y), "kendall": kendall(x, y), "n": len(both)}
            if all(math.isfinite(value) for value in values.values()):
                found.setdefault(name, {})[score] = values
    return found


def better(value: float, way: int) -> float:
    """A value turned so that more is better."""
    return -abs(value - 1) if way == 0 else way * value


def words(found: Mapping[str, Mapping[str, Mapping[str, float]]], task: Task | None, count: int) -> str:
    """Which measure a user may trust on these data, in sentences."""
    if task is None:
        return "Without labels nothing tells which of these measures to trust."
    if count < FEW:
        return (
            f"{count} checkpoint{'s are' if count > 1 else ' is'} too few to say whether a measure orders them as kNN "
            f"does: keep {FEW} or more (callbacks.checkpoint.keep_every_n_epochs=1), or add stage.runs"
        )
    score = keys(task)[0]
    rho = {name: its[score] for name, its in found.items() if score in its}
    least = least_correlation(count)
    groups: dict[str, list[str]] = {"yes": [], "no": [], "against": []}
    for name in sorted(rho, key=lambda name: -rho[name]["spearman"]):
        value = rho[name]["spearman"]
        group = "yes" if value >= least else "against" if value <= -least else "no"
        groups[group].append(f"{MEASURES[name][0]} ({value:.2f})")
    told = {
        "yes": "As kNN does, the checkpoints are ordered on these data by {}",
        "no": "no more than chance would: {}",
        "against": "the other way round: {}",
    }
    parts = [told[group].format(", ".join(names)) for group, names in groups.items() if names]
    if not groups["yes"]:
        parts = ["On these data none of the measures orders the checkpoints as kNN does", *parts]
    return f"{'; '.join(parts)}. Spearman, n = {count}; beyond {least:.2f} by chance once in twenty."


def drawn(
    rows: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Mapping[str, float]]], task: Task | None,
    file: Path,
) -> None:  # fmt: skip
    """A panel for each measure: its values over kNN, or over the checkpoints without labels, a colour for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in MEASURES if any(row.get(name) is not None for row in rows)]
    score = keys(task)[0] if task is not None else None
    runs = list(dict.fromkeys(str(row["run"]) for row in rows))
    down = max(1, -(-len(names) // 4))
    figure, axes = pyplot.subplots(down, 4, figsize=(13, 3.1 * down), squeeze=False, layout="constrained")
    for place, axis in enumerate(axes.flat):
        if place >= len(names):
            axis.set_axis_off()
            continue
        name = names[place]
        for run in runs:
            points = [
                (row.get(score) if score else i, row.get(name)) for i, row in enumerate(rows) if row["run"] == run
            ]
            some = [(x, y) for x, y in points if x is not None and y is not None]
            axis.plot([x for x, _ in some], [y for _, y in some], "o", label=Path(run).name.replace("$", r"\$"))
        rho = found.get(name, {}).get(score or "")
        title = MEASURES[name][0] + WAYS[MEASURES[name][1]]
        axis.set_title(f"{title}\nSpearman {rho['spearman']:+.2f}" if rho else title, fontsize=10)
        axis.set_xlabel(heading(*score.split("_", 1)) if score else "checkpoint", fontsize=9)
    if len(runs) > 1:
        axes.flat[0].legend(fontsize=7)
    figure.savefig(file, format="png", dpi=110)
    pyplot.close(figure)
