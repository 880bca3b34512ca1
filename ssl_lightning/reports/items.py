"""What a page shows of items: the map of their features, neighbours, typical ones, near-duplicates, confusions."""

import base64
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ssl_lightning.reports.charts import Bar, bar_chart, heat_map
from ssl_lightning.reports.html import attribute, details, escape, tabs
from ssl_lightning.reports.kept import Kept
from ssl_lightning.reports.maps import MAPS
from ssl_lightning.reports.palette import color

WIDE, HIGH = 900, 520  # of a map
CLASSES = 20  # that are told one by one
LEGEND = 40


@dataclass(frozen=True)
class Items:
    """The items of a `report.npz`, for drawing. What does not fit together there is left out."""

    kept: Kept

    @cached_property
    def labels(self) -> np.ndarray:
        return self._whole("labels", self.count, -1)

    @cached_property
    def found(self) -> np.ndarray:
        return self._whole("found", self.count, -1)

    @cached_property
    def indices(self) -> np.ndarray:
        return self._whole("indices", self.count, 0)

    @cached_property
    def features(self) -> np.ndarray:
        found = self.kept.get("features")
        ok = found is not None and found.ndim == 2 and np.isfinite(found).all()
        return found if ok and found is not None else np.zeros((0, 2), np.float16)

    @property
    def count(self) -> int:
        return len(self.features)

    @property
    def labelled(self) -> bool:
        return bool(len(self.labels)) and bool((self.labels >= 0).any())

    @property
    def classes(self) -> list[str]:
        found = self.kept.about.get("classes")
        return [str(name) for name in found] if isinstance(found, list) else []

    def name(self, label: int) -> str:
        """A class by its name, or its number."""
        if label < 0:
            return ""
        return self.classes[label] if label < len(self.classes) else f"class {label}"

    def number(self, key: str) -> int:
        """A whole number of `about`, 0 where there is none."""
        value = self.kept.about.get(key)
        return value if isinstance(value, int) and value >= 0 else 0

    def _whole(self, name: str, count: int, missing: int) -> np.ndarray:
        found = self.kept.get(name)
        fits = found is not None and found.shape == (count,)
        return found.astype(np.int64) if fits and found is not None else np.full(count, missing, np.int64)

    # ---- thumbnails

    @cached_property
    def large(self) -> dict[tuple[int, int], int]:
        """{(0 test or 1 train, index): place in the sheet of large thumbnails}."""
        splits, indices = self.kept.get("large_splits"), self.kept.get("large_indices")
        if splits is None or indices is None or self.kept.get("large") is None:
            return {}
        return {(int(s), int(i)): place for place, (s, i) in enumerate(zip(splits, indices, strict=False))}

    def sheets(self) -> str:
        """The pictures that the rest refers to, once."""
        drawn = ""
        if (large := self.kept.get("large")) is not None:
            size = f"{self.number('across') * 100}% {-(-len(self.large) // max(self.number('across'), 1)) * 100}%"
            drawn += f"<style>.thumb{{background-image:url({_address(large)});background-size:{size}}}</style>"
        told = {
            "labels": self.labels.tolist() if self.labelled else None,
            "found": self.found.tolist() if (self.found >= 0).any() else None,
            "indices": self.indices.tolist(),
            "classes": self.classes,
            "colors": [color(i) for i in range(len(self.classes))],
            "side": self.number("side"),
            "across": self.number("across"),
        }
        if (small := self.kept.get("sheet")) is not None:
            drawn += f'<img id="thumbnails" hidden alt="" src="{_address(small)}">'
        return f'{drawn}<div id="items" hidden data-items="{attribute(json.dumps(told, separators=(",", ":")))}"></div>'

    def figure(self, split: int, index: int, caption: str, kind: str = "") -> str:
        """One item with its picture, where there is one, and a caption."""
        place, across = self.large.get((split, index)), self.number("across")
        thumb = ""
        if place is not None and across:
            down = -(-len(self.large) // across)
            x = 100 * (place % across) / max(across - 1, 1)
            y = 100 * (place // across) / max(down - 1, 1)
            where = f"background-position:{x:.4f}% {y:.4f}%"
            thumb = f'<span class="thumb" role="img" aria-label="{attribute(caption)}" style="{where}"></span>'
        named = f"item {kind}".strip()
        return f'<figure class="{named}">{thumb}<figcaption>{escape(caption)}</figcaption></figure>'


def _address(data: np.ndarray) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data.astype(np.uint8).tobytes()).decode()}"


# ---- the map -------------------------------------------------------------------------------------------------------


def map_of_features(items: Items) -> str:
    """The maps as tabs, with the legend of classes."""
    if items.count < 3:
        return ""
    places = [("pca", items.features[:, :2].astype(np.float64))]
    for name in list(MAPS)[1:]:
        found = items.kept.get(f"map_{name}")
        if found is not None and found.shape == (items.count, 2) and np.isfinite(found).all():
            places.append((name, found.astype(np.float64)))
    drawn = tabs([(MAPS[name], _map(items, place)) for name, place in places])
    return f'<div class="card">{drawn}{_legend(items)}</div>'


def _map(items: Items, places: np.ndarray) -> str:
    if places.shape[1] < 2:
        places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    low, high = np.quantile(places, 0.002, axis=0), np.quantile(places, 0.998, axis=0)
    share = ((places - low) / np.maximum(high - low, 1e-12)).clip(-0.02, 1.02)
    xs, ys = 20 + share[:, 0] * (WIDE - 40), HIGH - 20 - share[:, 1] * (HIGH - 40)
    radius = 4.2 if items.count <= 600 else 3.4
    groups = []
    for label in sorted(set(items.labels.tolist())):
        rows = np.flatnonzero(items.labels == label)
        fill = color(label) if label >= 0 else "var(--c1)" if not items.labelled else "var(--c8)"
        wrong = (items.found[rows] >= 0) & (items.found[rows] != label)
        marks = {False: "", True: ' class="w"'}
        dots = "".join(
            f'<circle cx="{xs[i]:.1f}" cy="{ys[i]:.1f}" r="{radius}" data-i="{i}"{marks[bad]}/>'
            for i, bad in zip(rows, wrong.tolist(), strict=True)
        )
        groups.append(f'<g data-g="{label}" style="fill:{fill}">{dots}</g>')
    return (
        f'<svg class="map" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="map of features">{"".join(groups)}</svg>'
    )


def _legend(items: Items) -> str:
    if not items.labelled:
        return ""
    shown = [label for label in sorted(set(items.labels.tolist())) if label >= 0]
    entries = [
        f'<button type="button" aria-pressed="true" data-g="{label}"><i style="background:{color(label)}"></i>'
        f"{escape(items.name(label))}</button>"
        for label in shown[:LEGEND]
    ]
    if len(shown) > LEGEND:
        entries.append(f'<span class="note">and {len(shown) - LEGEND} more classes</span>')
    if (items.found >= 0).any():
        entries.append('<button type="button" aria-pressed="false" data-wrong="">only where kNN is wrong</button>')
    return f'<div class="legend">{"".join(entries)}</div>'


# ---- neighbours, typical items, duplicates ---------------------------------------------------------------------------


def neighbours(items: Items, most: int = 12) -> str:
    """Rows of a test item and its nearest; those of another class are marked."""
    queries, nearest = items.kept.get("queries"), items.kept.get("nearest")
    labels, cosines = items.kept.get("nearest_labels"), items.kept.get("nearest_cosines")
    if queries is None or nearest is None or labels is None or cosines is None:
        return ""
    split, rows = int(items.kept.about.get("bank") == "train"), []
    for place, found, classes, near in zip(queries, nearest, labels, cosines, strict=False):
        if place >= items.count:
            continue
        mine = int(items.labels[place])
        drawn = [
            items.figure(0, int(items.indices[place]), items.name(mine) or f"item {items.indices[place]}", "query")
        ]
        for index, label, cosine in zip(found, classes, near, strict=False):
            judged = "" if mine < 0 or label < 0 else "right" if label == mine else "wrong"
            drawn.append(items.figure(split, int(index), f"{items.name(int(label))} {cosine:.2f}".strip(), judged))
        rows.append(f'<div class="nearest">{"".join(drawn)}</div>')
    shown, more = rows[:most], rows[most:]
    hidden = details(f"{len(more)} more", f'<div class="rows">{"".join(more)}</div>') if more else ""
    return f'<div class="rows">{"".join(shown)}</div>{hidden}' if shown else ""


def typical(items: Items, most: int = 12) -> str:
    """The items with the nearest neighbours, and those that lie farthest from all."""
    score = items.kept.get("typical")
    if score is None or score.shape != (items.count,) or items.count < 4 * most:
        return ""
    order, parts = np.argsort(score, kind="stable"), []
    for title, rows in (("Most typical", order[::-1][:most]), ("Least typical", order[:most])):
        drawn = "".join(
            items.figure(0, int(items.indices[row]), f"{items.name(int(items.labels[row]))} {score[row]:.2f}".strip())
            for row in rows
        )
        parts.append(f'<div><h3>{title}</h3><div class="strip">{drawn}</div></div>')
    return f'<div class="grid2">{"".join(parts)}</div>'


def duplicates(items: Items) -> str:
    """Pairs of near-duplicates, those across the splits first and marked."""
    pairs, splits, cosines = (items.kept.get(name) for name in ("pairs", "pair_splits", "pair_cosines"))
    if pairs is None or splits is None or cosines is None:
        return ""
    if not len(pairs):
        return '<p class="note">None was found.</p>'
    drawn = []
    for (one, other), split, cosine in zip(pairs, splits, cosines, strict=False):
        word = "test and train: a leak" if split else "both in the test set"
        figures = items.figure(0, int(one), f"test {one}") + items.figure(
            int(split), int(other), f"{'train' if split else 'test'} {other}"
        )
        drawn.append(f'<div class="pair{" leak" if split else ""}">{figures}<p>{word}, cosine {cosine:.3f}</p></div>')
    return f'<div class="pairs">{"".join(drawn)}</div>'


# ---- classes ---------------------------------------------------------------------------------------------------------


def by_class(items: Items) -> str:
    """Accuracy of kNN for each class, and who is taken for whom."""
    asked = (items.found >= 0) & (items.labels >= 0)
    if not asked.any():
        return ""
    labels, found = items.labels[asked], items.found[asked]
    shares = {label: float((found[labels == label] == label).mean()) for label in sorted(set(labels.tolist()))}
    if len(shares) < 2:
        return ""
    order = sorted(shares, key=lambda label: -shares[label])
    told = order if len(order) <= CLASSES else [*order[: CLASSES // 2], *order[-CLASSES // 2 :]]
    title = "kNN by class" if told == order else f"kNN by class: the best and worst of {len(order)}"
    bars = bar_chart([Bar(items.name(label), shares[label]) for label in told], title, percent=True)
    return f'<div class="grid2">{bars}{_confusion(items, labels, found, list(shares))}</div>'


def _confusion(items: Items, labels: np.ndarray, found: np.ndarray, classes: list[int]) -> str:
    wrong = Counter((int(a), int(b)) for a, b in zip(labels, found, strict=True) if a != b)
    if len(classes) <= CLASSES:
        values = [
            [float(((labels == a) & (found == b)).sum() / max((labels == a).sum(), 1)) for b in classes]
            for a in classes
        ]
        names = [items.name(label) for label in classes]
        return heat_map(values, names, names, "Who is taken for whom (% of the class)", "class", "kNN says", True)
    rows = "".join(
        f"<tr><td>{escape(items.name(a))}</td><td>{escape(items.name(b))}</td><td>{count}</td></tr>"
        for (a, b), count in wrong.most_common(12)
    )
    head = "<tr><th>class</th><th>taken for</th><th>items</th></tr>"
    return f'<div class="card"><h3>Most frequent mix-ups</h3><table>{head}{rows}</table></div>'
