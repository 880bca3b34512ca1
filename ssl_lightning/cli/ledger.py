"""What a sweep has found: `sweep.csv` after each job, one table best first, and a heat map of two swept keys."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lightning.cli import table
from ssl_lightning.core import files
from ssl_lightning.core.words import is_share
from ssl_lightning.runs.folder import writing

MAINS = ("top1", "map", "r2")  # of classes, several labels and numbers, where results.json names no metric
KINDS = ("knn", "linear", "finetune", "detect", "segment")  # what is measured; the first that a job has ranks it


class Ledger:
    """One row per job, in the order they were run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.scores: list[Score] = []  # of each row
        self.probed: list[str] = []  # columns of what the probes of a stage found
        self.swept: list[str] = []

    def add(self, job: str, swept: Mapping[str, str], code: int, results: Mapping[str, Any] | None) -> float:
        """Note a job's end and rewrite sweep.csv; returns its score, nan where it has none."""
        self.swept = list(dict.fromkeys([*self.swept, *swept]))
        found = dict(results or {}) if code == 0 else {}
        status = "done" if code == 0 and results is not None else f"failed ({code})"
        mains, higher = metric_of(found)
        scores = {f"{what}_{main}": found.get(f"{what}_{main}") for what in KINDS for main in mains}
        scores = {name: value for name, value in scores.items() if isinstance(value, int | float)}
        probed = _of_probes(found, mains)
        self.probed = list(dict.fromkeys([*self.probed, *probed]))
        self.rows.append({"job": job, **swept, "status": status, **scores, **probed, "seconds": found.get("seconds")})
        self.scores.append(Score.of(scores, higher))
        self._write()
        return self.scores[-1].value

    def ranked(self) -> list[dict[str, Any]]:
        """Best first; jobs without a score last."""
        pairs = sorted(zip(self.scores, self.rows, strict=True), key=lambda pair: pair[0].rank, reverse=True)
        return [row for _, row in pairs]

    def columns(self) -> list[str]:
        """The swept keys, the status, and those measures that some job has."""
        names = list(dict.fromkeys(name for row in self.rows for name in row if name.split("_")[0] in KINDS))
        names = [name for what in KINDS for name in names if name.startswith(f"{what}_")]
        timed = ["seconds"] if any(row["seconds"] is not None for row in self.rows) else []
        return [*self.swept, "status", *(name for name in names if name not in self.swept), *self.probed, *timed]

    def show(self) -> None:
        """Print the table and draw the heat map."""
        rows = [{key: row.get(key) for key in self.columns()} for row in self.ranked()]
        table.show_rows(rows, f"{self.path}: {len(rows)} jobs, best first")
        print(f"table: {self.path / 'sweep.csv'}")
        if len(self.swept) == 2 and not all(math.isnan(score.value) for score in self.scores):
            print(f"heat map: {heat_map(self.rows, self.scores, self.swept, self.path / 'heatmap.png')}")

    def _write(self) -> None:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            with files.atomic(self.path / "sweep.csv") as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, ["job", *self.columns()], restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(self.ranked())


@dataclass(frozen=True)
class Score:
    """The figure a job is ranked by: kNN, else the linear probe, else fine-tuning; nan where it has none."""

    name: str = ""
    value: float = math.nan
    higher: bool = True

    @classmethod
    def of(cls, scores: Mapping[str, Any], higher: bool) -> Score:
        return next((cls(name, float(value), higher) for name, value in scores.items()), cls())

    @property
    def rank(self) -> float:
        """The higher the better."""
        return -math.inf if math.isnan(self.value) else self.value if self.higher else -self.value

    @property
    def share(self) -> bool:
        """Whether it is told in percent."""
        return is_share(self.name)


def metric_of(results: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """(the task's main metric, or those that may be it; whether more of it is better), as results.json tells."""
    told = results.get("metric")
    if isinstance(told, Mapping) and isinstance(told.get("name"), str):
        return (told["name"],), told.get("higher_is_better") is not False
    return MAINS, True


def _of_probes(results: Mapping[str, Any], mains: tuple[str, ...]) -> dict[str, Any]:
    """The scores of each probe, by its name: {"probes.speaker.knn_top1": 0.9}."""
    names = [f"{what}_{main}" for what in KINDS for main in mains]
    return {
        f"probes.{probe}.{name}": found[name]
        for probe, found in (results.get("probes") or {}).items()
        for name in names
        if found.get(name) is not None
    }


def heat_map(rows: list[dict[str, Any]], scores: list[Score], keys: list[str], path: Path) -> Path:
    """Draw first key x second key -> score as a picture, the best ones bright."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    down, across = (_sorted(list(dict.fromkeys(str(row[key]) for row in rows))) for key in keys)
    cells = [[math.nan] * len(across) for _ in down]
    measure = next(score for score in scores if score.name)
    scale, form = (100, ".1f") if measure.share else (1, ".3g")
    for row, score in zip(rows, scores, strict=True):
        cells[down.index(str(row[keys[0]]))][across.index(str(row[keys[1]]))] = scale * score.value
    figure, axes = pyplot.subplots(figsize=(2 + 1.1 * len(across), 1.6 + 0.8 * len(down)), layout="constrained")
    image = axes.imshow(cells, cmap="viridis" if measure.higher else "viridis_r", aspect="auto")
    known = [cell for line in cells for cell in line if not math.isnan(cell)]
    middle = (min(known) + max(known)) / 2 if known else 0.0
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            text, colour = (
                ("-", "black")
                if math.isnan(cell)
                else (f"{cell:{form}}", "white" if (cell <= middle) == measure.higher else "black")
            )
            axes.text(x, y, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.set(xlabel=keys[1], ylabel=keys[0])
    figure.colorbar(image, label=f"{measure.name} (%)" if measure.share else measure.name)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path


def _sorted(values: list[str]) -> list[str]:
    """By number where all are numbers, else in the order they came."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return values
