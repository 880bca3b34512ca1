"""Plain text for the terminal: figures in aligned columns, no wider than 100, readable in a file and without colour."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssl_lightning.core.errors import plain
from ssl_lightning.core.words import is_share, last_word

WIDTH = 100
FIXED = ("r2",)  # with three decimals
CUT = 40  # characters of a cell
GAP = "   "


def text(key: str, value: Any) -> str:
    """One value as a person reads it."""
    if isinstance(value, float):
        if is_share(key):
            return f"{100 * value:.1f} %"
        return f"{value:.3f}" if last_word(key) in FIXED else f"{value:.4g}"
    return "" if value is None else plain(str(value))


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows of equally many cells as lines, the first row the head: the first column to the left, the others to the
    right. Columns for which there is no room are left out, and "..." says so."""
    cut = [[cell if len(cell) <= CUT else f"{cell[: CUT - 3]}..." for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    fits = len(widths)
    while fits > 2 and len(indent) + sum(widths[:fits]) + len(GAP) * fits + 3 > WIDTH:
        fits -= 1
    lines = []
    for row in cut:
        first, *others = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        shown = [first, *others[: fits - 1], *(["..."] if fits < len(widths) else [])]
        lines.append((indent + GAP.join(shown)).rstrip())
    return lines


def short(keys: Sequence[str]) -> list[str]:
    """Dotted keys as headings: their last words, where no two are the same."""
    ends = [key.rsplit(".", 1)[-1] for key in keys]
    return ends if len(set(ends)) == len(ends) else list(keys)


def wrapped(sentence: str, indent: str = "") -> list[str]:
    """A sentence in lines that fit."""
    return textwrap.wrap(
        plain(sentence), WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def say(lines: Iterable[str]) -> None:
    """Print lines to a terminal or a file, whatever its encoding; what that does not know is written out."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in lines:
        print(line.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def show_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows with the same keys as one table, under a title."""
    keys = list(rows[0]) if rows else []
    cells = [[text(key, value) for key, value in row.items()] for row in rows]
    say([plain(title), *columns([short(keys), *cells])])
