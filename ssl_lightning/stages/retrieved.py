"""What `stage=retrieve` makes of neighbours: measures, tables, near-duplicates, the gallery."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ssl_lightning.core import files, progress
from ssl_lightning.core.cells import cell
from ssl_lightning.core.distributed import is_main
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.retrieval import relevant, relevant_counts, retrieval_scores, search
from ssl_lightning.reports import gallery, thumbnails
from ssl_lightning.reports.keep import CLOSE
from ssl_lightning.reports.pages import quietly
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.queries import Files

SplitName = Literal["train", "test"]
MOST_PAIRS = 2000  # pairs of near features whose items are compared, the nearest first
AT_ONCE = 256  # pairs whose items are in memory at a time


class Pair(NamedTuple):
    """Two items of the index with nearly equal values: their rows, the cosine and the correlation."""

    first: int
    second: int
    cosine: float
    correlation: float


def measured(queries: Features, index: Features, rows: Tensor, own: bool) -> dict[str, float]:
    """`retrieve_top1`, `retrieve_recall`, `retrieve_precision`, `retrieve_map`; {} where labels do not tell."""
    if not _tell(queries, index):
        return {}
    counts = relevant_counts(queries.labels, index.labels, own)
    scores = retrieval_scores(relevant(queries.labels, index.labels, rows), counts)
    return {f"retrieve_{name}": value for name, value in scores.items()}


def _tell(queries: Features, index: Features) -> bool:
    """Are these classes, or several labels? Of numbers no two are alike."""
    if queries.labels.ndim != index.labels.ndim:
        return False
    if index.labels.ndim == 1:
        return bool((index.labels >= 0).any()) and bool((queries.labels >= 0).any())
    known = index.labels[~index.labels.isnan().any(1)]
    return bool(len(known)) and bool(((known == 0) | (known == 1)).all())


def baselines(
    random: tuple[Features, Features], names: Names, within: SplitName | None, k: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """The same measures by random weights and by naive features."""
    train, test = random
    index, queries = (test if within == "test" else train), (train if within == "train" else test)
    own, found = within is not None, {}
    naive = [
        Features(names.naive("test" if part is test else "train", part.indices), part.labels, part.indices)
        for part in (queries, index)
    ]
    for name, pair in (("random_init", (queries, index)), (names.data.naive_name, (naive[0], naive[1]))):
        rows = search(pair[0].x, pair[1].x, k, own, device)[1]
        found[name] = measured(*pair, rows, own)
    return found


def protocol(query: str | None, within: str | None, k: int, count: int, same: float) -> str:
    """In words, for results.json."""
    who = "files queried" if query is not None else f"each {within} item queried" if within else "test items queried"
    where = f"the others of that split, {count}" if within else f"all {count} training items"
    return (
        f"{who} {where}, by cosine, k={k}; recall@k is the share of queries with a hit, mAP@k divides by min(R, k); "
        f"near-duplicates: features of cosine {CLOSE:g} or more whose items correlate by {same:g} or more"
    )


# ---- names -----------------------------------------------------------------------------------------------------------


class Names:
    """What queries and items of the index are called (paths, or a split and a number), and how they look."""

    def __init__(
        self, data: DataModule, index_split: SplitName, query_split: SplitName, asked: Files | None = None
    ) -> None:
        self.data, self.index_split, self.query_split, self.asked = data, index_split, query_split, asked

    def naive(self, split: SplitName, indices: Tensor) -> Tensor:
        """What features must beat."""
        return self.data.naive_features(split, indices)

    def views(self, split: SplitName, numbers: Sequence[int]) -> dict[int, Any]:
        """{number: evaluation view} of items of a split."""
        return thumbnails.views_of(self.data, split, numbers)

    def drawn(self, views: dict[int, Any]) -> dict[int, Any]:
        """{number: picture} of views."""
        return thumbnails.drawn(self.data, views, gallery.SIDE)

    def query(self, queries: Features, row: int) -> str:
        if self.asked is not None:
            return self.asked.paths[row]
        return self._item(self.query_split, int(queries.indices[row]))

    def item(self, index: Features, row: int) -> str:
        return self._item(self.index_split, int(index.indices[row]))

    def _item(self, split: SplitName, number: int) -> str:
        items = self.data.probe_set if split == "train" else self.data.test_set
        return items.paths[number] if items.paths is not None else f"{split} {number}"

    def label(self, features: Features, row: int) -> str:
        """The class, or those of several labels that it has; "" without."""
        label = features.labels[row]
        names = self.data.label_names
        if label.ndim:
            return ", ".join(name for name, value in zip(names, label.tolist(), strict=False) if value == 1)
        return names[int(label)] if 0 <= int(label) < len(names) else ""


# ---- near-duplicates -------------------------------------------------------------------------------------------------


def near_duplicates(names: Names, index: Features, split: SplitName, same: float, device: torch.device) -> list[Pair]:
    """Pairs of the index whose features nearly agree and whose evaluation views correlate, the closest first."""
    if len(index) < 2:
        return []
    with progress.phase("near-duplicates"):
        cosines, rows = (part[:, 0] for part in search(index.x, index.x, 1, True, device))
        close = torch.nonzero(cosines >= CLOSE)[:, 0].tolist()
        pairs = {tuple(sorted((i, int(rows[i])))): float(cosines[i]) for i in close}
        order = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:MOST_PAIRS]
        found = []
        for start in range(0, len(order), AT_ONCE):
            some = order[start : start + AT_ONCE]
            views = names.views(split, [int(index.indices[row]) for pair in some for row in pair])
            for first, second in some:
                one, other = (views.get(int(index.indices[row])) for row in (first, second))
                alike = thumbnails.alike(one, other)
                if alike >= same:
                    found.append(Pair(first, second, pairs[first, second], alike))
    return sorted(found, key=lambda pair: (-pair.correlation, pair))


# ---- files -----------------------------------------------------------------------------------------------------------


def write(
    run: RunFolder,
    names: Names,
    queries: Features,
    index: Features,
    cosines: Tensor,
    rows: Tensor,
    pairs: Sequence[Pair],
) -> list[str]:
    """`neighbours.csv` and `near_duplicates.csv` in the run's folder; rank 0 alone writes. Returns their paths."""
    paths = [run.path / "neighbours.csv", run.path / "near_duplicates.csv"]
    if is_main():
        hits = relevant(queries.labels, index.labels, rows) if _tell(queries, index) else None
        head = ["query", "query_class", "rank", "neighbour", "class", "cosine", "same_class"]
        with files.atomic(paths[0]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(head)
            for q in range(len(rows)):
                mine = names.query(queries, q), names.label(queries, q)
                for rank, row in enumerate(rows[q].tolist()):
                    its = names.item(index, row), names.label(index, row)
                    hit = "" if hits is None else int(hits[q, rank])
                    line = (*mine, rank + 1, *its, f"{float(cosines[q, rank]):.6f}", hit)
                    table.writerow([cell(value) for value in line])
        _write_pairs(paths[1], names, index, pairs)
    return [str(path) for path in paths]


def _write_pairs(path: Path, names: Names, index: Features, pairs: Sequence[Pair]) -> None:
    with files.atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["first", "second", "first_class", "second_class", "cosine", "correlation"])
        for first, second, cosine, correlation in pairs:
            both = [names.item(index, row) for row in (first, second)]
            both += [names.label(index, row) for row in (first, second)]
            table.writerow([*map(cell, both), f"{cosine:.6f}", f"{correlation:.6f}"])


def keep_gallery(
    run: RunFolder,
    names: Names,
    queries: Features,
    index: Features,
    nearest: tuple[Tensor, Tensor],
    pairs: Sequence[Pair],
) -> None:
    """What the page shows of this; rank 0 alone, and what fails is one line."""
    if not is_main():
        return
    with quietly("the gallery of this run"), torch.no_grad():
        cosines, rows = nearest
        chosen = gallery.chosen(len(rows))
        hits = relevant(queries.labels, index.labels, rows) if _tell(queries, index) else None
        shown = [(q, rows[q, : gallery.ACROSS].tolist()) for q in chosen]
        wanted = [row for _, found in shown for row in found]
        wanted += [row for pair in pairs[: gallery.PAIRS] for row in pair[:2]]
        mine = {q: names.asked.view(q) for q in chosen} if names.asked is not None else None
        if mine is None:
            numbers = {q: int(queries.indices[q]) for q in chosen}
            found = names.views(names.query_split, list(numbers.values()))
            mine = {q: found[number] for q, number in numbers.items() if number in found}
        numbers = {row: int(index.indices[row]) for row in wanted}
        views = names.views(names.index_split, list(numbers.values()))
        theirs = {row: views[number] for row, number in numbers.items() if number in views}
        drawn = [names.drawn(part) for part in (mine, theirs)]
        lines = [
            gallery.Line(
                (drawn[0].get(q), names.label(queries, q) or Path(names.query(queries, q)).name, ""),
                [
                    (
                        drawn[1].get(row),
                        f"{names.label(index, row)} {float(cosines[q, i]):.2f}".strip(),
                        "" if hits is None else "right" if bool(hits[q, i]) else "wrong",
                    )
                    for i, row in enumerate(found)
                ],
            )
            for q, found in shown
        ]
        twins = [[(drawn[1].get(row), names.item(index, row)) for row in pair[:2]] for pair in pairs[: gallery.PAIRS]]
        gallery.keep(run.path, lines, twins, names.data.noun)
