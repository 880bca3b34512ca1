"""What `stage=transfer` makes of a list of data sets: their names, a row for each, the figure, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Task
from ssl_lightning.core.words import KINDS, METRICS, is_share, named_baseline
from ssl_lightning.data.base import DataModule

CLASSIFY = "classify"
Wanted = tuple[str, dict[str, Any], str]  # which data set, the keys that differ, the task


def settled(sets: Sequence[str] | Mapping[str, Mapping[str, Any]] | None) -> dict[str, Wanted]:
    """{name in the table: what is asked for}. Raises UserError for what is neither a name nor a mapping."""
    if not sets:
        raise UserError("stage.sets: name the data sets, stage.sets=[cifar10,photos], or {birds: {root: birds}}")
    found: dict[str, Wanted] = {}
    pairs = sets.items() if isinstance(sets, Mapping) else [(one, {}) for one in sets]
    for name, keys in pairs:
        if not isinstance(name, str) or not isinstance(keys, Mapping | None):
            raise UserError(f"stage.sets: {name!r} is no data set; give a name, a folder, or {{name: {{root: ...}}}}")
        rest = dict(keys or {})
        which, task = str(rest.pop("data", name)), str(rest.pop("task", CLASSIFY))
        if "data" not in (keys or {}) and isinstance(rest.get("root"), str) and isinstance(sets, Mapping):
            which = rest.pop("root")  # {birds: {root: photos/birds}}: what kind of data it is, its files tell
        title = Path(name).name if isinstance(sets, Sequence) else name
        if title in found:
            raise UserError(f"stage.sets names {title} twice; give each a name of its own, {{one: {{root: ...}}}}")
        found[title] = which, rest, task
    return found


def row_of(name: str, data: DataModule, task: Task, found: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a data set: sizes, metric, kNN and linear probe, and both by random weights and naive features."""
    row: dict[str, Any] = {"data": name, "items": len(data.labelled_indices("train")), "test_items": len(data.test_set)}
    row |= {"outputs": len(task.names), "metric": task.main}
    row |= {kind: found.get(f"{kind}_{task.main}") for kind in ("knn", "linear")}
    for key, scores in found["baselines"].items():
        its = {kind: scores.get(f"{kind}_{task.main}") for kind in ("knn", "linear")}
        row |= {f"{key}_{kind}": value for kind, value in its.items() if value is not None}
    mine, other = row["linear"], row.get("random_init_linear")
    if isinstance(mine, float) and isinstance(other, float):
        gain, noise = (1 if task.higher else -1) * (mine - other), task.noise(other, row["test_items"])
        row["beside_random"] = "better" if gain > noise else "worse" if gain < -noise else "within chance"
    return row


def words(rows: Sequence[Mapping[str, Any]]) -> str:
    """On which data sets the linear probe beats that of random weights by more than chance."""
    known = [row for row in rows if "beside_random" in row]
    better = [row for row in known if row["beside_random"] == "better"]
    told = f"The linear probe beats random weights on {len(better)} of {len(known)} data sets."
    rest = [f"{row['data']} ({row['beside_random']})" for row in known if row not in better]
    return told + (f" Not on {', '.join(rest)}." if rest else "")


def bars(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A group of bars for each data set: linear probe and kNN, full for the features and pale for random weights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    series = [("linear", ""), ("knn", ""), ("linear", "random_init"), ("knn", "random_init")]
    figure, axis = pyplot.subplots(figsize=(max(6.0, 1.5 + 1.1 * len(rows)), 3.8), layout="constrained")
    shares = all(is_share(str(row["metric"])) for row in rows)
    for place, (kind, baseline) in enumerate(series):
        key = f"{baseline}_{kind}" if baseline else kind
        values = [(100 if shares else 1) * (row[key] if row.get(key) is not None else 0.0) for row in rows]
        color, name = f"C{place % 2}", f"{KINDS[kind]}{f', {named_baseline(baseline)}' if baseline else ''}"
        spots = [i + 0.2 * (place - 1.5) for i in range(len(rows))]
        axis.bar(spots, values, 0.18, color=color, alpha=0.35 if baseline else 1.0, label=name)
    names = [f"{row['data']}\n{METRICS.get(row['metric'], row['metric'])}".strip().replace("$", r"\$") for row in rows]
    axis.set_xticks(range(len(rows)), names, fontsize=9)
    axis.set_ylabel("%" if shares else "main metric")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", fontsize=8, frameon=False, ncols=4)
    figure.savefig(file, format="png", dpi=110)
    pyplot.close(figure)
