"""Rows that a stage has measured, one for each checkpoint or data set: as a csv file, and as tables of a page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_lightning.core.cells import cell
from ssl_lightning.core.words import KINDS, is_share, measure, of_row
from ssl_lightning.reports.axes import number
from ssl_lightning.reports.html import escape


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the text of a csv file, a column for each key that any of them has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows([["" if row.get(key) is None else cell(row[key]) for key in columns] for row in rows])
    return text.getvalue()


def html_of(results: Mapping[str, Any]) -> str:
    """The tables of `rows` and of `correlations` in a stage's results; "" without. Nothing there is trusted."""
    rows = [row for row in _list(results.get("rows")) if isinstance(row, Mapping)]
    if not rows:
        return ""
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    columns = [key for key in columns if any(row.get(key) not in (None, "") for row in rows)]
    body = _table([heading(key) for key in columns], [_cells(columns, row) for row in rows])
    return body + _correlations(results.get("correlations"))


def _cells(columns: Sequence[str], row: Mapping[str, Any]) -> list[str]:
    return [shown(of_row(key, row.get("metric")), row.get(key)) for key in columns]


def heading(key: str) -> str:
    """`knn_top1` -> "kNN"; other keys with spaces."""
    kind, _, metric = key.partition("_")
    return measure(kind, metric) if kind in KINDS and metric else key.replace("_", " ")


def shown(key: str, value: Any) -> str:
    """A cell for people."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return number(value, is_share(key)) if math.isfinite(value) else ""


def _correlations(found: Any) -> str:
    """Spearman and Kendall of each measure with each score."""
    lines = []
    for name, its in found.items() if isinstance(found, Mapping) else ():
        for score, values in its.items() if isinstance(its, Mapping) else ():
            if isinstance(values, Mapping):
                told = [number(values[key]) if isinstance(values.get(key), int | float) else "" for key in KEYS]
                lines.append([heading(str(name)), heading(str(score)), *told])
    if not lines:
        return ""
    note = "Do they order the checkpoints alike? 1: exactly so; 0: by chance; -1: the other way round."
    table = _table(["measure", "beside", "Spearman", "Kendall", "checkpoints"], lines)
    return f'<h3>Rank correlations</h3><p class="note">{note}</p>{table}'


KEYS = ("spearman", "kendall", "n")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(word)}</th>" for word in head)
    rest = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in line)}</tr>" for line in lines)
    return f'<div class="card scroll"><table><tr>{first}</tr>{rest}</table></div>'


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
