"""What a sweep has found: `sweep.csv` after each job, one table best first, and a heat map of two swept keys."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.cli import table
from ssl_lightning.core import files
from ssl_lightning.runs.folder import writing

MAINS = ("top1", "map", "r2")  # of classes, several labels and numbers; of each, more is better
SCORES = tuple(f"{what}_{main}" for what in ("knn", "linear", "finetune") for main in MAINS)  # the first ranks a job


class Ledger:
    """One row per job, in the order they were run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.swept: list[str] = []

    def add(self, job: str, swept: Mapping[str, str], code: int, results: Mapping[str, Any] | None) -> float:
        """Note a job's end and rewrite sweep.csv; returns its score, nan where it has none."""
        self.swept = list(dict.fromkeys([*self.swept, *swept]))
        found = dict(results or {}) if code == 0 else {}
        status = "done" if code == 0 and results is not None else f"failed ({code})"
        scores = {name: found.get(name) for name in (*SCORES, "seconds")}
        self.rows.append({"job": job, **swept, "status": status, **scores})
        self._write()
        return score(self.rows[-1])

    def ranked(self) -> list[dict[str, Any]]:
        """Best first; jobs without a score last."""
        return sorted(self.rows, key=lambda row: -math.inf if math.isnan(score(row)) else score(row), reverse=True)

    def columns(self) -> list[str]:
        """The swept keys, the status, and those measures that some job has."""
        measured = [name for name in (*SCORES, "seconds") if any(row[name] is not None for row in self.rows)]
        return [*self.swept, "status", *measured]

    def show(self) -> None:
        """Print the table and draw the heat map."""
        rows = [{key: row.get(key) for key in self.columns()} for row in self.ranked()]
        table.show_rows(rows, f"{self.path}: {len(rows)} jobs, best first")
        print(f"table: {self.path / 'sweep.csv'}")
        if len(self.swept) == 2 and not all(math.isnan(score(row)) for row in self.rows):
            print(f"heat map: {heat_map(self.rows, self.swept, self.path / 'heatmap.png')}")

    def _write(self) -> None:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            with files.atomic(self.path / "sweep.csv") as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, ["job", *self.columns()], restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(self.ranked())


def score(row: Mapping[str, Any]) -> float:
    """The figure a job is ranked by: kNN, else the linear probe, else fine-tuning; nan where it has none."""
    return next((float(row[name]) for name in SCORES if row.get(name) is not None), math.nan)


def heat_map(rows: list[dict[str, Any]], keys: list[str], path: Path) -> Path:
    """Draw first key x second key -> score as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    down, across = (_sorted(list(dict.fromkeys(str(row[key]) for row in rows))) for key in keys)
    cells = [[math.nan] * len(across) for _ in down]
    for row in rows:
        cells[down.index(str(row[keys[0]]))][across.index(str(row[keys[1]]))] = 100 * score(row)
    figure, axes = pyplot.subplots(figsize=(2 + 1.1 * len(across), 1.6 + 0.8 * len(down)), layout="constrained")
    image = axes.imshow(cells, cmap="viridis", aspect="auto")
    known = [cell for line in cells for cell in line if not math.isnan(cell)]
    middle = (min(known) + max(known)) / 2 if known else 0.0
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            text, colour = (
                ("-", "black") if math.isnan(cell) else (f"{cell:.1f}", "white" if cell <= middle else "black")
            )
            axes.text(x, y, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.set(xlabel=keys[1], ylabel=keys[0])
    measure = next((name for name in SCORES if any(row.get(name) is not None for row in rows)), SCORES[0])
    figure.colorbar(image, label=f"{measure} (%)")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path


def _sorted(values: list[str]) -> list[str]:
    """By number where all are numbers, else in the order they came."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return values
