"""What labels are worth, on a page: the figure and the table of stage=label_curve, and accuracies class by class."""

from collections.abc import Mapping

from ssl_lightning.core import words
from ssl_lightning.reports import html, names
from ssl_lightning.reports.charts import Bar, bar_chart
from ssl_lightning.reports.html import escape
from ssl_lightning.reports.read import Run
from ssl_lightning.reports.told import counted

FIGURE = "label_curve"
MOST = 40  # classes that get a bar
CELL = "white-space:nowrap;overflow-wrap:normal"


def section(run: Run) -> str:
    """The figure and the table of stage=label_curve."""
    file, table = run.folder / f"{FIGURE}.png", run.results.get("table")
    rows = [row for row in table if isinstance(row, Mapping)] if isinstance(table, list) else []
    if run.results.get("stage") != "label_curve" or not rows:
        return ""
    metric = str(rows[0].get("metric"))
    head = "".join(
        f'<th style="width:auto">{escape(name)}</th>' for name in ("", "labels", "mean", "95 % band", "seeds")
    )
    lines = ""
    for row in rows:
        low, high = (names.value(metric, row[key]) if row.get(key) is not None else "" for key in ("low", "high"))
        band = f"{low} to {high}" if low else ""
        cells = (
            row.get("name"),
            counted(row.get("labels")),
            names.value(metric, row.get("mean")),
            band,
            row.get("seeds"),
        )
        told = "".join(f'<td style="{CELL}">{escape(cell)}</td>' for cell in cells)
        lines += f"<tr>{told}</tr>"
    picture = html.picture(file.read_bytes(), "label curve", classes="wide") if file.is_file() else ""
    shown = f'<figure class="shot">{picture}</figure>' if picture else ""
    return f'<div class="card">{shown}<table class="facts"><tr>{head}</tr>{lines}</table></div>'


def classes(run: Run) -> str:
    """The figure of each class of a network that was trained on labels, the lowest first: accuracy, mAP or mIoU."""
    found = run.results.get("per_class")
    found = found if isinstance(found, Mapping) else {}
    scores = sorted((value, str(name)) for name, value in found.items() if isinstance(value, int | float))
    if not scores:
        return ""
    shown = scores if len(scores) <= MOST else [*scores[: MOST // 2], *scores[-MOST // 2 :]]
    note = f'<p class="note">The {MOST // 2} lowest and highest of {len(scores)}.</p>'
    left = note if len(shown) < len(scores) else ""
    metric = run.results.get("metric")
    key = str(metric.get("name")) if isinstance(metric, Mapping) else "top1"
    title = f"{words.METRICS.get(key) or 'Accuracy'} on each class"
    chart = bar_chart([Bar(name, value) for value, name in shown], title, percent=True)
    return f'{left}<div class="grid3">{chart}</div>'
