"""What features keep of known factors: a table, one bar chart of several runs, a page, and a verdict in words."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lightning.core import files, secrets
from ssl_lightning.core.cells import cell
from ssl_lightning.core.errors import plain
from ssl_lightning.reports import html
from ssl_lightning.reports.charts import Bar, bar_chart
from ssl_lightning.reports.palette import SERIES_LIGHT, color

if TYPE_CHECKING:
    from ssl_lightning.evaluation.readout import Readout

Columns = Mapping[str, Mapping[str, "Readout"]]  # of each run or baseline, of each factor
SEEN, LOST, APART = 0.1, 0.6, 0.1  # kept by random weights; the share of that below which it is lost; of two runs
KEPT = "R2 of numbers; of classes the accuracy above chance, as a share of what there is above it"


def shown(name: str) -> str:
    """A run's name on one line, without secrets."""
    return plain(secrets.hide(name))


def _share(one: Readout) -> str:
    return f"{100 * one.kept:.0f} %"


def verdict(columns: Columns, runs: int) -> str:
    """What each run (the first `runs` columns) lost of what random weights have, and where the runs differ most."""
    names = list(columns)
    random = columns[names[runs]]
    told = []
    for name in names[:runs]:
        lost = [
            f"{factor} ({_share(one)}, random weights {_share(random[factor])})"
            for factor, one in columns[name].items()
            if random[factor].kept > SEEN and one.kept < LOST * random[factor].kept
        ]
        kept = [factor for factor, one in columns[name].items() if one.kept > random[factor].kept + APART]
        words = [f"ignores {', '.join(lost)}"] if lost else []
        words += [f"tells {', '.join(kept)} better than random weights"] if kept else []
        told.append(f"{shown(name)} {' and '.join(words) or 'keeps what random weights keep, and no more'}.")
    return " ".join([*told, *_differences(columns, names[:runs])])


def _differences(columns: Columns, names: list[str]) -> list[str]:
    """The factors that the runs keep most unequally, the largest difference first."""
    found = []
    for factor in columns[names[0]] if len(names) > 1 else ():
        order = sorted(names, key=lambda name: columns[name][factor].kept)
        least, most = (columns[name][factor] for name in (order[0], order[-1]))
        if most.kept - least.kept > APART:
            words = f"{factor} is kept most by {shown(order[-1])} ({_share(most)}), "
            words += f"least by {shown(order[0])} ({_share(least)})"
            found.append((most.kept - least.kept, words))
    return [f"Of these runs {'; '.join(words for _, words in sorted(found, reverse=True))}."] if found else []


def write(columns: Columns, words: str, folder: Path) -> None:
    """`invariance.csv`, `invariance.html` and `invariance.png` into a run's folder, each whole or not at all."""
    files.write_atomic(folder / "invariance.csv", as_csv(columns))
    files.write_atomic(folder / "invariance.html", page(columns, words))
    draw(columns, folder / "invariance.png")


def as_csv(columns: Columns) -> str:
    """A row for each run or baseline and factor."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["features", "factor", "score", "chance", "kept"])
    for name, found in columns.items():
        for factor, one in found.items():
            table.writerow([cell(shown(name)), factor, f"{one.score:.4f}", f"{one.chance:.4f}", f"{one.kept:.4f}"])
    return file.getvalue()


def page(columns: Columns, words: str) -> str:
    """A chart for each factor, with a bar for each run."""
    charts = []
    for factor in next(iter(columns.values())):
        bars = [Bar(shown(name), found[factor].kept, color=color(i)) for i, (name, found) in enumerate(columns.items())]
        charts.append(f"<div>{bar_chart(bars, factor, percent=True)}</div>")
    said = html.escape(words)
    body = (
        f'<h1>What the features keep</h1><div class="verdict ok">{said}</div><p class="note">{html.escape(KEPT)}.</p>'
    )
    return html.document("What the features keep", f'{body}<div class="grid2">{"".join(charts)}</div>')


def draw(columns: Columns, path: Path) -> None:
    """One picture: a group of bars for each factor, a bar for each run and baseline."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    factors, count = list(next(iter(columns.values()))), len(columns)
    figure, axes = pyplot.subplots(figsize=(2 + 1.5 * len(factors), 4.2), layout="constrained")
    try:
        for i, (name, found) in enumerate(columns.items()):
            places = [place + (i - (count - 1) / 2) * 0.84 / count for place in range(len(factors))]
            label = shown(name).replace("$", r"\$").lstrip("_")  # no formula, and none that is left out
            fill = SERIES_LIGHT[i % len(SERIES_LIGHT)]
            bars = axes.bar(places, [found[f].kept for f in factors], 0.8 / count, color=fill, label=label)
            axes.bar_label(bars, [f"{100 * found[f].kept:.0f}" for f in factors], fontsize=7, padding=1)
        axes.set_xticks(range(len(factors)), factors)
        axes.set_ylim(0, 1.08)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        axes.set_ylabel("kept (R2, or accuracy above chance)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title("What a linear readout finds in the features", loc="left", fontsize=11)
        axes.legend(frameon=False, fontsize=8, ncols=min(count, 5), loc="upper center", bbox_to_anchor=(0.5, -0.08))
        with files.atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    finally:
        pyplot.close(figure)
