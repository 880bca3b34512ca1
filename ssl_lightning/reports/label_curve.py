"""How good a network is by the number of labels: means over seeds with their 95 % bands, as a table and a figure.

And in words: how many labels from scratch are worth what fewer reach from pretrained weights.
"""

import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ssl_lightning.core import secrets
from ssl_lightning.core.cells import cell
from ssl_lightning.core.errors import plain
from ssl_lightning.core.words import is_share
from ssl_lightning.reports.axes import number
from ssl_lightning.reports.compare import as_csv
from ssl_lightning.reports.palette import LIGHT, SERIES_LIGHT

SCRATCH, NAIVE = "scratch", "naive"
FINETUNE, LINEAR = "finetune", "linear"
LOOKS: dict[str, tuple[str, str]] = {  # of each line: colour and dashes
    FINETUNE: (SERIES_LIGHT[0], "-"),
    LINEAR: (SERIES_LIGHT[5], (0, (4, 2))),  # type: ignore[dict-item]
    f"other_{FINETUNE}": (SERIES_LIGHT[1], "-"),
    f"other_{LINEAR}": (SERIES_LIGHT[4], (0, (4, 2))),  # type: ignore[dict-item]
    SCRATCH: ("#3d4652", "-"),
    NAIVE: ("#8b95a1", (0, (1, 1.6))),  # type: ignore[dict-item]
}
# Student's t, the 97.5 % quantile, of 1, 2, 3 ... degrees of freedom; beyond these `t_quantile` computes it.
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_NORMAL = 1.959964
WIDTH, HEIGHT, DPI = 7.2, 4.5, 200  # inches, and dots in one: 1,440 px wide


@dataclass(frozen=True)
class Point:
    """One line at one number of labels.

    Attributes:
        line: "finetune", "linear", "scratch", "naive", or one of the first two of the other backbone, "other_linear".
        labels: how many were used.
        values: the main metric of each seed.
    """

    line: str
    labels: int
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def margin(self) -> float | None:
        """Half of the 95 % band of the mean, by Student's t over seeds; None of one seed."""
        if len(self.values) < 2:
            return None
        return t_quantile(len(self.values) - 1) * stdev(self.values) / math.sqrt(len(self.values))


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; above ten degrees of freedom by its expansion around the normal's."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, n = _NORMAL, freedom  # Abramowitz & Stegun 26.7.5
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / n + second / n**2 + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / n**3


def points(jobs: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Jobs (`line`, `labels`, `score`), each of one seed, gathered: line by line, the fewest labels first."""
    found: dict[tuple[str, int], list[float]] = {}
    for job in jobs:
        found.setdefault((str(job["line"]), int(job["labels"])), []).append(float(job["score"]))
    order = list(LOOKS)
    keys = sorted(found, key=lambda key: (order.index(key[0]), key[1]))
    return [Point(line, labels, tuple(found[line, labels])) for line, labels in keys]


def table(found: Sequence[Point], metric: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each point: what it is, labels, mean, band, and the seeds' own values."""
    rows = []
    for point in found:
        margin = point.margin
        row: dict[str, Any] = {"line": point.line, "name": names[point.line], "labels": point.labels, "metric": metric}
        row |= {"mean": point.mean, "low": None if margin is None else point.mean - margin}
        row |= {"high": None if margin is None else point.mean + margin, "seeds": len(point.values)}
        rows.append(row | {"values": list(point.values)})
    return rows


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as the text of a csv file; the seeds' values in one cell. A cell is no formula, and holds no secret."""
    told = []
    for row in rows:
        name = cell(plain(str(row["name"])))
        told.append({**row, "name": name, "values": " ".join(f"{value:.6g}" for value in row["values"])})
    return as_csv(told)


# ---- what labels are worth


def worth(found: Sequence[Point], line: str, higher: bool = True) -> list[dict[str, Any]]:
    """At each number of labels, how many labels from scratch reach what this line does.

    Between two numbers of labels the mean is taken to run straight over their logarithm; a line that falls keeps the
    best that it had. `scratch_labels` is None where scratch does not get there with all that were tried, and 0 where
    the fewest that were tried are enough and do better.
    """
    mine = [p for p in found if p.line == line]
    sign = 1 if higher else -1
    scratch = [(p.labels, sign * p.mean) for p in found if p.line == SCRATCH]
    rows = []
    for point in mine if scratch else ():
        needed = _reached(scratch, sign * point.mean)
        times = needed / point.labels if needed else None
        rows.append({"labels": point.labels, "score": point.mean, "scratch_labels": needed, "times": times})
    return rows


def _reached(curve: Sequence[tuple[int, float]], value: float) -> float | None:
    """The labels at which a curve of (labels, score) first reaches a value; 0 before its start, None never."""
    if curve[0][1] >= value:
        return float(curve[0][0]) if curve[0][1] == value else 0.0
    best_at, best = curve[0]
    for labels, score in curve[1:]:
        if score >= value:
            share = (value - best) / (score - best)
            return math.exp(math.log(best_at) + share * (math.log(labels) - math.log(best_at)))
        if score > best:
            best_at, best = labels, score
        else:
            best_at = labels
    return None


def sentence(found: Sequence[Point], line: str, higher: bool, word: Any, classes: int = 0) -> str:
    """What pretraining is worth in labels.

    Args:
        line: "finetune" or "linear".
        word: a value of the metric for people.
        classes: their number, where sizes are told of each class; 0: labels in all.
    """
    mine = {p.labels: p for p in found if p.line == line}
    scratch = {p.labels: p for p in found if p.line == SCRATCH}
    if not mine or not scratch:
        return ""
    sign = 1 if higher else -1

    def size(labels: float) -> str:
        count = max(1, round(labels / (classes or 1)))
        digits = max(0, len(str(count)) - 2)
        count = round(count, -digits) if labels not in mine else count
        return f"{count:,} label{'s' * (count != 1)}" + (" a class" if classes else "")

    how = "fine-tuned from this run" if line == FINETUNE else "a linear probe on this run"
    ahead = [row for row in worth(found, line, higher) if _gain(mine, scratch, row["labels"], sign)[0] > 0]
    if not ahead:
        most = max(mine)
        beside = f"{word(mine[most].mean)} against {word(scratch[most].mean)} with {size(most)}"
        return f"Pretraining shows no gain over training from scratch at any of these numbers of labels ({beside})."
    sure = [row for row in ahead if _gain(mine, scratch, row["labels"], sign)[1]]
    row = (sure or ahead)[0]
    labels, needed = row["labels"], row["scratch_labels"]
    give = "gives" if size(labels).split()[1] == "label" else "give"
    told = f"{how}, {size(labels)} {give} {word(mine[labels].mean)}, from scratch {word(scratch[labels].mean)}"
    told = f"{told[0].upper()}{told[1:]}."
    single = all(len(point.values) < 2 for point in mine.values())
    doubt = "With one seed this may be" if single else "The seeds differ by as much, so this may be"
    chance = "" if sure else f" {doubt} chance: give more of them."
    if needed is None:
        return f"{told} From scratch, {size(max(scratch))} do not reach that.{chance}"
    times = f"{row['times']:.1f} times as many" if row["times"] < 10 else f"{row['times']:.0f} times as many"
    return f"{told} They are worth about {size(needed)} from scratch, {times}.{chance}"


def _gain(mine: Mapping[int, Point], scratch: Mapping[int, Point], labels: int, sign: int) -> tuple[float, bool]:
    """(how far a line is ahead of scratch, whether that is beyond its 95 % band, over seeds, which share labels)."""
    if labels not in scratch:
        return 0.0, False
    pairs = zip(mine[labels].values, scratch[labels].values)
    gain = Point("", labels, tuple(sign * (a - b) for a, b in pairs))
    return gain.mean, gain.margin is not None and gain.mean > gain.margin


# ---- the figure


def figure(found: Sequence[Point], names: Mapping[str, str], about: str, metric: str, key: str) -> bytes:
    """A PNG: lines over the number of labels, on a logarithmic axis, each named at its end, bands behind them.

    Args:
        names: of each line.
        about: what was trained on what, under the title.
        metric: its name.
        key: of the metric, `top1`: shares are shown in percent.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    percent = is_share(key)
    picture = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=LIGHT["card"])
    FigureCanvasAgg(picture)
    axes = picture.add_axes((0.1, 0.135, 0.6, 0.74))
    ends: list[tuple[str, float]] = []
    for line in dict.fromkeys(point.line for point in found):
        mine = [point for point in found if point.line == line]
        x, y = [p.labels for p in mine], [p.mean for p in mine]
        color, dashes = LOOKS[line]
        thin = line == NAIVE
        if all(p.margin is not None for p in mine):
            low, high = ([p.mean + side * (p.margin or 0.0) for p in mine] for side in (-1, 1))
            axes.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
        axes.plot(x, y, color=color, linestyle=dashes, linewidth=1.4 if thin else 2, marker="o", markersize=4.5)
        ends.append((line, y[-1]))
    sizes = sorted({point.labels for point in found})
    axes.set_xscale("log")
    axes.set_ylim(*_limits(found, percent))
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value):,}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, percent)))
    axes.grid(axis="y", color=LIGHT["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT["soft"])
    axes.tick_params(colors=LIGHT["soft"], labelsize=9, length=3)
    axes.set_xlabel("labels that were used (logarithmic)", color=LIGHT["soft"], fontsize=9.5)
    title = f"{metric[:1].upper()}{metric[1:]} by the number of labels"
    _write(picture, 0.02, 0.935, title, fontsize=12, color=LIGHT["ink"], weight="bold")
    _write(picture, 0.02, 0.888, _told(about, found), fontsize=9, color=LIGHT["soft"])
    for line, place in zip([line for line, _ in ends], _apart(axes, [y for _, y in ends]), strict=True):
        at = axes.get_position()
        height = at.y0 + place * at.height
        _write(picture, at.x1 + 0.015, height, names[line], fontsize=9.5, color=LOOKS[line][0], va="center")
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        picture.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _limits(found: Sequence[Point], percent: bool) -> tuple[float, float]:
    """The ends of the upright axis: all means, and of their bands what leaves the lines half of the height."""
    low, high = min(p.mean for p in found), max(p.mean for p in found)
    most = max((high - low) / 2, 0.02 * max(abs(high), abs(low), 1e-3))
    room = min(max((p.margin or 0.0) for p in found), most) + 0.1 * most
    low, high = low - room, high + room
    return (max(low, 0.0), min(high, 1.0)) if percent else (low, high)


def _told(about: str, found: Sequence[Point]) -> str:
    seeds = max(len(point.values) for point in found)
    return f"{about}, test set; " + (f"mean of {seeds} seeds and its 95 % band" if seeds > 1 else "one seed")


def _write(picture: Any, x: float, y: float, words: str, **look: Any) -> None:
    """Text as it is: no dollar sign in it begins a formula."""
    shown = secrets.hide(plain(words))
    picture.text(x, y, shown if len(shown) <= 90 else f"{shown[:87]}...", **look).set_parse_math(False)


def _apart(axes: Any, values: Sequence[float], gap: float = 0.062) -> list[float]:
    """Heights (shares of the axis) for names at the ends of lines, so far apart that they can be read."""
    low, high = axes.get_ylim()
    wanted = [(value - low) / (high - low) for value in values]
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = [wanted[i] for i in order]
    for _ in range(200):
        for i in range(1, len(places)):
            if (short := gap - (places[i] - places[i - 1])) > 1e-9:
                places[i - 1], places[i] = places[i - 1] - short / 2, places[i] + short / 2
    found = [0.0] * len(wanted)
    for i, place in zip(order, places, strict=True):
        found[i] = place
    return found
