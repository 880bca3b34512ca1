"""Runs beside one another: a table of means over seeds, curves over one another, a picture of what was swept.

A pure function of the runs' folders. `page` gives the HTML, `table` the rows of compare.csv.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from urllib.parse import quote

from ssl_lightning.core import files, secrets, words
from ssl_lightning.reports import html, swept_measures
from ssl_lightning.reports.charts import Bar, Series, bar_chart, heat_map, line_chart
from ssl_lightning.reports.conclusion import conclusion, figure, figure_of, heading
from ssl_lightning.reports.gathered import Group, Section, as_numbers, in_order, sections, short
from ssl_lightning.reports.parallel import parallel
from ssl_lightning.reports.run_files import COSTS, CURVES, find, read

TITLES = {"val/knn_top1": "kNN during training", "val/probe_top1": "online probe", "train/loss": "loss"}
STYLE = ".compared{overflow-x:auto;margin:14px 0}.compared th,.compared td{white-space:nowrap}"
MOST_BANDS = 4  # lines in a chart that are shown with a band
MOST_LINES = 6  # lines in a chart: the best ones
LEAST_SPREAD = 0.02  # of shares: the colours of a heat map span two points at least where no noise is known


def write(runs: Sequence[Path], folder: Path, name: str = "compare") -> list[Section]:
    """Write `<name>.html` and `<name>.csv` on these runs into a folder; returns what they hold."""
    found = sections([read(path) for path in runs])
    files.write_atomic(folder / f"{name}.html", page(found, folder))
    files.write_atomic(folder / f"{name}.csv", as_csv(table(found)))
    return found


def of_sweep(folder: Path) -> Path | None:
    """Write `compare.html` on the jobs of a sweep, beside its table; None where there are fewer than two."""
    jobs = [entry for entry in sorted(folder.iterdir()) if (entry / "config.yaml").is_file()]
    if len(jobs) < 2:
        return None
    path = folder / "compare.html"
    files.write_atomic(path, page(sections([read(job) for job in find(str(folder))]), folder))
    return path


# ---- the table -----------------------------------------------------------------------------------------------------


def table(found: Sequence[Section]) -> list[dict[str, Any]]:
    """A row for each group: what it is, its runs, mean and deviation over seeds of each measure, its best run."""
    rows = []
    for part in found:
        for group in part.groups:
            row: dict[str, Any] = {"stage": part.stage, "data": part.data, "task": part.task}
            row |= dict(zip(part.keys, group.values, strict=True))
            row |= {"runs": len(group.runs), "status": status(group)}
            for measure in part.measures:
                row[measure] = _or_none(group.mean(measure))
                row |= {} if measure in COSTS else {f"{measure}_std": _or_none(group.deviation(measure))}
            best = group.best(part.main, part.is_lower(part.main)) if part.main else group.runs[0]
            rows.append(row | {"run": secrets.hide(str(best.path))})
    return rows


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the text of a csv file; columns that no row fills are left out."""
    columns = dict.fromkeys(key for row in rows for key, value in row.items() if value is not None)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def status(group: Group) -> str:
    """`done`, or what is missing."""
    missing = [run for run in group.runs if run.results is None]
    if not missing:
        return "done"
    return missing[0].status if len(missing) == len(group.runs) else f"{len(missing)} of {len(group.runs)} unfinished"


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---- the page ------------------------------------------------------------------------------------------------------


def page(found: Sequence[Section], folder: Path | None = None) -> str:
    """The whole page. `folder`: where it is to lie; runs that have a page of their own are linked from there."""
    count = sum(len(group.runs) for part in found for group in part.groups)
    titles = [f"{part.stage} on {part.data}" + ("" if part.task == "classify" else f", {part.task}") for part in found]
    body = f"<style>{STYLE}</style><h1>{count} runs compared</h1>"
    if len(found) > 1:
        body += _note(f"Of different stages, data or tasks, so they stand apart: {'; '.join(titles)}.")
    for i, (part, title) in enumerate(zip(found, titles, strict=True)):
        body += html.section(f"s{i}", title, _section(part, folder))
    return html.document("Runs compared", body, [(f"s{i}", title) for i, title in enumerate(titles)])


def _section(part: Section, folder: Path | None) -> str:
    kind = "ok" if part.main and part.groups[0].done else "watch"
    parts = [f'<div class="verdict {kind}">{html.escape(conclusion(part))}</div>', _table(part, folder)]
    if part.follows:
        known = ", ".join(part.keys) or "the runs"
        parts.append(_note(f"These differ, too, and follow from {known}: {', '.join(part.follows)}."))
    charts = [
        chart for chart in (swept(part), *swept_measures.charts(part), *(curves(part, key) for key in CURVES)) if chart
    ]
    return "".join([*parts, f'<div class="grid2">{"".join(charts)}</div>'])


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _table(part: Section, folder: Path | None) -> str:
    """Groups, best first; the best of each measure in bold."""
    best = {measure: _best(part, measure) for measure in part.measures if measure not in COSTS}
    head = [*(short(key) for key in part.keys), "runs", *(heading(m) for m in part.measures), "status", "best run"]
    lines = ["".join(f"<th>{html.escape(word)}</th>" for word in head)]
    for group in part.groups:
        cells = [html.escape(value) for value in (*group.values, len(group.runs))]
        for measure in part.measures:
            said = html.escape(figure(group, measure))
            cells.append(f"<b>{said}</b>" if best.get(measure) is group else said)
        run = group.best(part.main, part.is_lower(part.main)) if part.main else group.runs[0]
        cells += [html.escape(status(group)), _link(run.path, folder)]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="card compared"><table>{rows}</table></div>'


def _link(run: Path, folder: Path | None) -> str:
    """A run's name, as a link to its own page where it has one."""
    name = html.escape(secrets.hide(run.name))
    if folder is None or not (run / "report.html").is_file():
        return name
    address = quote(os.path.relpath((run / "report.html").absolute(), folder.absolute()).replace(os.sep, "/"))
    return f'<a href="{html.attribute(f"./{address}")}">{name}</a>'


def _best(part: Section, measure: str) -> Group | None:
    sign = -1 if part.is_lower(measure) else 1
    known = [group for group in part.groups if group.done and math.isfinite(group.mean(measure))]
    return max(known, key=lambda group: sign * group.mean(measure), default=None)


def swept(part: Section) -> str:
    """What was swept, and the main measure: a line or bars for one key, a heat map for two, lines across for more."""
    groups = [group for group in part.groups if part.main and math.isfinite(group.mean(part.main))]
    if len(groups) < 2 or not part.main or not part.keys:
        return ""
    title, percent = f"{heading(part.main)} by {' and '.join(map(short, part.keys))}", words.is_share(part.main)
    if len(part.keys) == 1:
        return _one_key(part, groups, title, percent)
    means = [group.mean(part.main) for group in groups]
    if len(part.keys) == 2:
        down, across = (in_order(group.values[i] for group in groups) for i in (0, 1))
        cells = [[math.nan] * len(across) for _ in down]
        for group, mean in zip(groups, means, strict=True):
            cells[down.index(group.values[0])][across.index(group.values[1])] = mean
        labels = short(part.keys[0]), short(part.keys[1])
        drawn = heat_map(cells, down, across, title, *labels, percent=percent, scale=scale_of(part, means))
        return f"<div>{drawn}{_note(_of_scale(part, means))}</div>"
    rows = [group.values for group in groups]
    lower, names = part.is_lower(part.main), [short(key) for key in part.keys]
    title = f"{heading(part.main)} by {len(names)} settings"
    return parallel(rows, means, names, heading(part.main), title, scale_of(part, means), percent, lower)


def scale_of(part: Section, means: Sequence[float]) -> tuple[float, float]:
    """The ends of a colour scale. They lie at least four deviations over seeds apart, so that noise alone shows as one
    colour; without several seeds, two points of a share."""
    assert part.main is not None
    low, high, noise = min(means), max(means), part.noise(part.main)
    least = 4 * noise if math.isfinite(noise) else LEAST_SPREAD if words.is_share(part.main) else 0.0
    more = max(0.0, least - (high - low)) / 2
    return low - more, high + more


def _of_scale(part: Section, means: Sequence[float]) -> str:
    assert part.main is not None
    low, high = (figure_of(value, part.main) for value in scale_of(part, means))
    span = "" if math.isnan(part.noise(part.main)) else ", at least four deviations over seeds apart"
    return f"From light, {low}, to dark, {high}{span}."


def _one_key(part: Section, groups: Sequence[Group], title: str, percent: bool) -> str:
    assert part.main is not None
    values = as_numbers(group.values[0] for group in groups)
    spread = [group.deviation(part.main) for group in groups]
    ends = [
        (g.mean(part.main) - s, g.mean(part.main) + s) if math.isfinite(s) else None for g, s in zip(groups, spread)
    ]
    if values is None:
        bars = [Bar(g.values[0], g.mean(part.main), *(end or (None, None))) for g, end in zip(groups, ends)]
        return bar_chart(bars, title, heading(part.main), percent)
    order = sorted(range(len(groups)), key=lambda i: values[i])
    x, y = [values[i] for i in order], [groups[i].mean(part.main) for i in order]
    low, high = ([end[side] if (end := ends[i]) else y[j] for j, i in enumerate(order)] for side in (0, 1))
    line = Series(heading(part.main), x, y, low, high) if any(ends) else Series(heading(part.main), x, y)
    return line_chart([line], title, short(part.keys[0]), heading(part.main), percent)


def curves(part: Section, metric: str) -> str:
    """One metric of the training, a line for each group: the mean over seeds, and one deviation around it."""
    series = []
    for group in part.groups[:MOST_LINES]:
        by_step: dict[float, list[float]] = {}
        for run in group.runs:
            for step, value in run.curves.get(metric, ()):
                by_step.setdefault(step, []).append(value)
        if not by_step:
            continue
        x = sorted(by_step)
        y = [fmean(by_step[step]) for step in x]
        spread = [stdev(by_step[step]) if len(by_step[step]) > 1 else 0.0 for step in x]
        several = any(spread)
        low, high = ([a + sign * b for a, b in zip(y, spread)] for sign in (-1, 1))
        name = group.values[0] if len(part.keys) == 1 else ", ".join(group.values) or part.name(group)
        series.append(Series(name, x, y, low if several else None, high if several else None))
    if max((len(one.x) for one in series), default=0) < 2:
        return ""
    if len(series) > MOST_BANDS:
        series = [replace(one, low=None, high=None) for one in series]
    by = f" by {', '.join(map(short, part.keys))}" if part.keys else ""
    more = f", the best {MOST_LINES}" if len(part.groups) > MOST_LINES else by if len(by) < 24 else ""
    return line_chart(series, f"{TITLES[metric]}{more}", "step", "", percent=metric.endswith("top1"))
