"""What a page shows of predictions with labels: confusions, reliability, classes, the most confident mistakes.

In `report.npz`: `confusions` (M, 3), class, predicted class and number of items; `reliability` (15, 3), items, sum of
confidences and number of right ones in each bin; `mistakes` (G, 2), class and predicted class of the most confident
mistakes, `mistake_shares` (G,) their probabilities, and `mistake_sheet`, their pictures. `about.predictions` has the
names and the figures.
"""

from __future__ import annotations

import base64
import heapq
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.core import secrets
from ssl_lightning.evaluation.calibration import BINS, Calibration
from ssl_lightning.reports import kept, thumbnails
from ssl_lightning.reports.axes import number
from ssl_lightning.reports.charts import Series, heat_map, line_chart
from ssl_lightning.reports.html import attribute, details, escape
from ssl_lightning.reports.kept import Kept
from ssl_lightning.reports.palette import color

MISTAKES = 24
SIDE = 96  # px of a picture
CLASSES = 20  # up to so many are told one by one


# ---- keeping ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Mistake:
    """One item that was taken for another class."""

    share: float  # the probability of the class that was said
    order: int  # of equal shares the first item goes before
    label: int = field(compare=False)
    said: int = field(compare=False)
    name: str = field(compare=False)
    item: Any = field(compare=False)  # what it can be drawn from


class Mistakes:
    """The most confident mistakes of any number of items."""

    def __init__(self, most: int = MISTAKES) -> None:
        self.most, self._heap = most, list[Mistake]()

    def wanted(self, share: float) -> bool:
        """Would a mistake with this probability be kept?"""
        return len(self._heap) < self.most or share > self._heap[0].share

    def add(self, share: float, place: int, label: int, said: int, name: str, item: Any) -> None:
        found = Mistake(share, -place, label, said, name, item)
        (heapq.heappush if len(self._heap) < self.most else heapq.heappushpop)(self._heap, found)

    def sorted(self) -> list[Mistake]:
        """The most confident first."""
        return sorted(self._heap, reverse=True)


def keep(
    folder: Path,
    names: Sequence[str],
    found: Calibration,
    mistakes: Sequence[Mistake],
    pictures: Mapping[int, np.ndarray],
    more: Mapping[str, Any],
) -> None:
    """Add to `report.npz`.

    Args:
        names: of the classes.
        pictures: {place in `mistakes`: bytes (96, 96, 3)}.
        more: further facts of the run, `kept.about`.
    """
    arrays = {
        "confusions": np.array([(*pair, n) for pair, n in sorted(found.pairs.items())], np.int64).reshape(-1, 3),
        "reliability": found.bins.numpy(),
        "mistakes": np.array([(m.label, m.said) for m in mistakes], np.int64).reshape(-1, 2),
        "mistake_shares": np.array([m.share for m in mistakes], np.float64),
    }
    if pictures:
        drawn = [pictures.get(i) for i in range(len(mistakes))]
        arrays["mistake_sheet"] = thumbnails.sheet(drawn, SIDE)
    told = {
        "classes": [str(name) for name in names],
        "mistakes": [secrets.hide(os.path.basename(m.name)) for m in mistakes],
        "ece": found.ece,
        "brier": found.brier,
        "items": found.count,
    }
    kept.add(folder, {**more, "predictions": told}, arrays)


# ---- drawing ---------------------------------------------------------------------------------------------------------


def section(stored: Kept) -> str:
    """The part of the page; nothing where the folder holds no predictions, or none that fit together."""
    told = stored.about.get("predictions")
    confusions, bins = stored.get("confusions"), stored.get("reliability")
    if not isinstance(told, Mapping) or confusions is None or bins is None:
        return ""
    names = [str(name) for name in told["classes"]] if isinstance(told.get("classes"), list) else []
    if confusions.ndim != 2 or confusions.shape[1:] != (3,) or bins.shape != (BINS, 3) or not len(confusions):
        return ""
    if not names or int(confusions[:, :2].min()) < 0 or int(confusions[:, :2].max()) >= len(names):
        return ""
    pairs = {(int(a), int(b)): int(n) for a, b, n in confusions}
    charts = [confusion(pairs, names), reliability(bins, told)]
    parts = [f'<div class="grid2">{"".join(charts)}</div>', by_class(pairs, names), mistakes(stored, told, names)]
    return "".join(parts)


def confusion(pairs: Mapping[tuple[int, int], int], names: Sequence[str]) -> str:
    """Who is taken for whom: of few classes the matrix in percent of each class, of many the most frequent mix-ups."""
    present = sorted({k for pair in pairs for k in pair})
    if len(present) <= CLASSES:
        items = {a: sum(n for (label, _), n in pairs.items() if label == a) for a in present}
        values = [[pairs.get((a, b), 0) / items[a] if items[a] else math.nan for b in present] for a in present]
        words = [names[k] for k in present]
        return heat_map(values, words, words, "Who is taken for whom (% of the class)", "class", "predicted", True)
    wrong = sorted(((n, a, b) for (a, b), n in pairs.items() if a != b), key=lambda row: (-row[0], *row[1:]))
    rows = "".join(
        f"<tr><td>{escape(names[a])}</td><td>{escape(names[b])}</td><td>{n}</td></tr>" for n, a, b in wrong[:12]
    )
    head = "<tr><th>class</th><th>taken for</th><th>items</th></tr>"
    return f'<div class="card"><h3>Most frequent mix-ups</h3><table>{head}{rows}</table></div>'


def reliability(bins: np.ndarray, told: Mapping[str, Any]) -> str:
    """Accuracy over confidence in bins, beside the diagonal that honest probabilities lie on."""
    there = bins[:, 0] > 0
    counts = bins[there, 0]
    confidence, accuracy = (bins[there, i] / counts for i in (1, 2))
    lines = [
        Series("accuracy of each bin", confidence.tolist(), accuracy.tolist()),
        Series("as confident as right", [0.0, 1.0], [0.0, 1.0], color=color(7)),
    ]
    figures = [(word, told.get(key)) for word, key in (("ECE", "ece"), ("Brier score", "brier"))]
    words = ", ".join(f"{word} {number(value)}" for word, value in figures if isinstance(value, int | float))
    return line_chart(
        lines, f"Reliability: {words}" if words else "Reliability", "confidence", "accuracy", percent=True
    )


def by_class(pairs: Mapping[tuple[int, int], int], names: Sequence[str]) -> str:
    """Precision and recall of each class; those of many classes are folded away."""
    found = Calibration()
    found.pairs.update(pairs)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{row['items']}</td><td>{number(row['precision'], True)}</td>"
        f"<td>{number(row['recall'], True)}</td></tr>"
        for name, row in found.by_class(list(names)).items()
    )
    head = "<tr><th>class</th><th>items</th><th>precision</th><th>recall</th></tr>"
    table = f'<div class="card"><table>{head}{rows}</table></div>'
    return f"<h3>By class</h3>{table}" if len(pairs) <= CLASSES**2 else details("Precision and recall by class", table)


def mistakes(stored: Kept, told: Mapping[str, Any], names: Sequence[str]) -> str:
    """The most confident mistakes, with their pictures where there are some."""
    found, shares, sheet = (stored.get(name) for name in ("mistakes", "mistake_shares", "mistake_sheet"))
    if found is None or shares is None or found.shape != (len(shares), 2) or not len(found):
        return ""
    files = told.get("mistakes")
    files = files if isinstance(files, list) and len(files) == len(found) else [""] * len(found)
    drawn, across, down = [], thumbnails.ACROSS, max(1, -(-len(found) // thumbnails.ACROSS))
    style = ""
    if sheet is not None:
        data = base64.b64encode(sheet.astype(np.uint8).tobytes()).decode()
        size = f"background-size:{across * 100}% {down * 100}%"
        style = f"<style>.mistakes .thumb{{background-image:url(data:image/jpeg;base64,{data});{size}}}</style>"
    for i, ((label, said), share, file) in enumerate(zip(found.tolist(), shares.tolist(), files, strict=True)):
        if not (0 <= label < len(names) and 0 <= said < len(names)):
            continue
        caption = f"{names[said]} {100 * share:.0f} %, is {names[label]}"
        x, y = 100 * (i % across) / (across - 1), 100 * (i // across) / max(down - 1, 1)
        where = f"background-position:{x:.4f}% {y:.4f}%"
        picture = f'<span class="thumb" role="img" aria-label="{attribute(caption)}" style="{where}"></span>'
        name = f"<br>{escape(file)}" if file else ""
        drawn.append(
            f'<figure class="item wrong">{picture if sheet is not None else ""}'
            f"<figcaption>{escape(caption)}{name}</figcaption></figure>"
        )
    note = '<p class="note">What was said, how surely, and what the label is.</p>'
    return f'{style}<h3>Most confident mistakes</h3>{note}<div class="strip mistakes">{"".join(drawn)}</div>'
