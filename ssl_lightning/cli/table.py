"""Results as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ssl_lightning.runs.folder import flatten

SHARES = ("top1", "top5", "accuracy")  # fractions, shown in percent


def text(key: str, value: Any) -> str:
    """One value as a person reads it."""
    if isinstance(value, float) and key.rsplit(".", 1)[-1].rsplit("_", 1)[-1] in SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def show_results(results: Mapping[str, Any], title: str) -> None:
    """Print results.json as one table, nested keys with dots."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in flatten(results).items():
        table.add_row(key, text(key, value))
    Console().print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows with the same keys as one table."""
    table = Table(title=title, title_justify="left")
    for key in rows[0] if rows else ():
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*(text(key, value) for key, value in row.items()))
    Console().print(table)
