"""The gallery of `stage=retrieve`: rows of a query and its neighbours, and pairs of near-duplicates.

In `report.npz` it is `gallery`, a JPEG sheet of thumbnails, and `about.gallery`: for each row the captions and marks of
its pictures in order, which lie in the sheet one after another; `about.gallery_pairs` likewise.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.core import secrets
from ssl_lightning.reports import kept, thumbnails
from ssl_lightning.reports.html import attribute, details, escape

ROWS, ACROSS, PAIRS, SIDE = 32, 10, 24, 96  # queries that are shown, their neighbours, pairs; px
FIRST = 12  # rows that are not folded away
MARKS = ("right", "wrong")
Picture = tuple[np.ndarray | None, str, str]  # (SIDE, SIDE, 3) bytes, a caption, a mark


@dataclass(frozen=True)
class Line:
    """A query and its neighbours, the nearest first."""

    query: Picture
    found: Sequence[Picture]


def chosen(count: int, most: int = ROWS) -> list[int]:
    """At most so many queries, spread evenly."""
    return sorted({round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(min(count, most))})


def keep(
    folder: Path, lines: Sequence[Line], pairs: Sequence[Sequence[tuple[np.ndarray | None, str]]], noun: str
) -> None:
    """Add the gallery to a run's `report.npz`."""
    pictures = [picture for line in lines for picture in (line.query, *line.found)]
    sheet = [picture for picture, *_ in pictures] + [picture for pair in pairs for picture, _ in pair]
    told = [[[secrets.hide(caption), mark] for _, caption, mark in (line.query, *line.found)] for line in lines]
    twins = [[secrets.hide(caption) for _, caption in pair] for pair in pairs]
    about = {"gallery": told, "gallery_pairs": twins, "gallery_side": SIDE, "noun": noun}
    drawn = any(picture is not None for picture in sheet)
    kept.add(folder, about, {"gallery": thumbnails.sheet(sheet, SIDE)} if drawn else {})


def html_of(found: kept.Kept) -> str:
    """The section of a page; "" where there is none. Nothing in the file is trusted."""
    lines, pairs = _lists(found.about, "gallery"), _lists(found.about, "gallery_pairs")
    if not lines:
        return ""
    sheet = found.get("gallery")
    count = sum(map(len, lines)) + sum(map(len, pairs))
    sheets = _Sheet(count, sheet is not None)
    rows = []
    for line in lines:
        figures = [sheets.figure(*_caption(one), "query" if not i else "") for i, one in enumerate(line)]
        rows.append(f'<div class="nearest">{"".join(figures)}</div>')
    shown, more = rows[:FIRST], rows[FIRST:]
    folded = details(f"{len(more)} more", f'<div class="rows">{"".join(more)}</div>') if more else ""
    twins = "".join(
        f'<div class="pair">{"".join(sheets.figure(Path(str(one)).name, "") for one in pair)}</div>' for pair in pairs
    )
    note = "A query and its nearest, with their cosine. Red: another class. All of them are in neighbours.csv."
    told = f'<p class="note">{note}</p><div class="rows">{"".join(shown)}</div>{folded}'
    told += '<h3>Near-duplicates</h3><p class="note">All of them are in near_duplicates.csv.</p>'
    told += f'<div class="pairs">{twins}</div>' if twins else '<p class="note">None was found.</p>'
    return (_style(sheet, count) if sheet is not None else "") + told


def _lists(about: Mapping[str, Any], name: str) -> list[list[Any]]:
    value = about.get(name)
    return [one for one in value if isinstance(one, list)] if isinstance(value, list) else []


def _caption(one: Any) -> tuple[str, str]:
    caption, mark = one if isinstance(one, list) and len(one) == 2 else (str(one), "")
    return str(caption), str(mark) if mark in MARKS else ""


def _style(sheet: np.ndarray, count: int) -> str:
    address = f"data:image/jpeg;base64,{base64.b64encode(sheet.astype(np.uint8).tobytes()).decode()}"
    size = f"{thumbnails.ACROSS * 100}% {-(-count // thumbnails.ACROSS) * 100}%"
    return f"<style>.found{{background-image:url({address})!important;background-size:{size}!important}}</style>"


class _Sheet:
    """Thumbnails of the sheet, one after another."""

    def __init__(self, count: int, drawn: bool) -> None:
        self.down, self.drawn, self.next = max(1, -(-count // thumbnails.ACROSS)), drawn, 0

    def figure(self, caption: str, mark: str, kind: str = "") -> str:
        place, self.next = self.next, self.next + 1
        thumb = ""
        if self.drawn:
            x = 100 * (place % thumbnails.ACROSS) / (thumbnails.ACROSS - 1)
            y = 100 * (place // thumbnails.ACROSS) / max(self.down - 1, 1)
            where = f"background-position:{x:.4f}% {y:.4f}%"
            thumb = f'<span class="thumb found" role="img" aria-label="{attribute(caption)}" style="{where}"></span>'
        named = f"item {kind or mark}".strip()
        return f'<figure class="{named}">{thumb}<figcaption>{escape(caption)}</figcaption></figure>'
