"""What one swept number (views.strength, a temperature) does to the other measures than the main one, a chart each."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from statistics import fmean, stdev

from ssl_lightning.core import words
from ssl_lightning.reports.charts import Series, line_chart
from ssl_lightning.reports.gathered import Group, Section, as_numbers, short
from ssl_lightning.reports.run_files import Run, number_of

BOUND = "train/mutual_information"
PART = 0.1  # of a training, its end, over which the bound of single batches is averaged


def charts(part: Section) -> list[str]:
    """kNN and linear probe, alignment, and the InfoNCE bound (log N - loss) over one key with numbers; else none.

    The mean over seeds, with a deviation around it where there are several. Alignment and the bound are of a run's own
    views: weaker views are easier to align.
    """
    values = as_numbers(group.values[0] for group in part.groups) if len(part.keys) == 1 else None
    if values is None or len(values) < 2:
        return []
    found = []
    for title, percent, measured in _measures(part):
        chart = _chart(part, values, title, percent, measured)
        found += [chart] if chart else []
    return found


Measured = Callable[[Run], float]


def _measures(part: Section) -> list[tuple[str, bool, Measured]]:
    shown: list[tuple[str, bool, Measured]] = []
    for kind in ("knn", "linear"):
        key = f"{kind}_top1"
        if key in part.measures and key != part.main:
            shown.append((words.measure(kind, "top1"), True, lambda run, key=key: run.measured().get(key, math.nan)))  # type: ignore[misc]
    return [
        *shown,
        ("alignment of two views (0: the same)", False, alignment),
        ("InfoNCE bound of the views (nats)", False, bound),
    ]


def alignment(run: Run) -> float:
    """Of a run's results; nan where there is none."""
    quality = (run.results or {}).get("quality")
    value = quality.get("alignment") if isinstance(quality, dict) else None
    return float(value) if isinstance(value, int | float) else math.nan


def bound(run: Run) -> float:
    """The lower bound of the views' mutual information, over the end of the training; nan where it was not measured."""
    file = run.path / "metrics.csv"
    if not file.is_file():
        return math.nan
    with open(file, newline="", encoding="utf-8", errors="replace") as text:
        found = [value for row in csv.DictReader(text) if math.isfinite(value := number_of(row.get(BOUND)))]
    return fmean(found[-max(1, round(PART * len(found))) :]) if found else math.nan


def _chart(part: Section, values: list[float], title: str, percent: bool, measured: Measured) -> str:
    points = sorted((value, *_over_seeds(group, measured)) for value, group in zip(values, part.groups, strict=True))
    points = [point for point in points if math.isfinite(point[1])]
    if len(points) < 2:
        return ""
    x, y, spread = zip(*points, strict=True)
    low, high = ([a + sign * b for a, b in zip(y, spread, strict=True)] for sign in (-1, 1))
    line = Series(title, x, y, low, high) if any(spread) else Series(title, x, y)
    key = short(part.keys[0])
    return line_chart([line], f"{title} by {key}", key, "", percent)


def _over_seeds(group: Group, measured: Measured) -> tuple[float, float]:
    """(mean, standard deviation, 0 of a single seed); a seed counts once."""
    by_seed: dict[object, float] = {}
    for run in group.done or group.runs:
        if math.isfinite(value := measured(run)):
            by_seed.setdefault(run.origin, value)
    found = list(by_seed.values())
    return (fmean(found) if found else math.nan), (stdev(found) if len(found) > 1 else 0.0)
