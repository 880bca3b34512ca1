"""What a page is drawn from, read from a run's folder: config, metrics, results, pictures and `report.npz`."""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lightning.core import plain_yaml, secrets
from ssl_lightning.core.errors import UserError
from ssl_lightning.reports import kept
from ssl_lightning.runs.places import config_of

Row = dict[str, float]
EPOCH = re.compile(r"epoch_(\d+)")


@dataclass(frozen=True)
class Run:
    """A run's folder as far as pages know it. Nothing in it is trusted: names and values may be anybody's.

    Attributes:
        rows: those of metrics.csv; a value that is no number is left out.
        parts: the metrics of each training of a stage that trains several times, by its name.
        pictures: {name: [(epoch or None for the newest, file)]}, the newest last.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[Row]
    parts: dict[str, list[Row]]
    results: dict[str, Any]
    kept: kept.Kept
    pictures: dict[str, list[tuple[int | None, Path]]]

    @property
    def choices(self) -> Mapping[str, Any]:
        """The options that the config was composed of."""
        found = self.config.get("choices")
        return found if isinstance(found, Mapping) else {}

    @property
    def done(self) -> bool:
        return bool(self.results)


def run(folder: Path) -> Run:
    """Read a folder; what is not there, or cannot be read, is empty."""
    try:
        config = secrets.mask(config_of(folder))
    except UserError:
        config = {}
    parts = {file.parent.name: metrics_of(file.parent) for file in sorted(folder.glob("*/metrics.csv"))}
    parts = {name: rows for name, rows in parts.items() if rows and not (folder / name / "config.yaml").exists()}
    return Run(folder, config, metrics_of(folder), parts, results_of(folder), kept.read(folder), pictures_of(folder))


def results_of(folder: Path) -> dict[str, Any]:
    """results.json, or nothing."""
    try:
        found = plain_yaml.read_json(folder / "results.json") if (folder / "results.json").is_file() else {}
    except (UserError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def metrics_of(folder: Path) -> list[Row]:
    """The rows of metrics.csv, in order; infinite and missing values, and rows without a step, are left out."""
    file = folder / "metrics.csv"
    if not file.is_file():
        return []
    rows = []
    with open(file, newline="", errors="replace") as opened:
        for raw in csv.DictReader(opened):
            row = {str(name): found for name, text in raw.items() if (found := _number(text)) is not None}
            if "step" in row:
                rows.append(row)
    return rows


def pictures_of(folder: Path) -> dict[str, list[tuple[int | None, Path]]]:
    """The pictures of a run, each with its earlier states in pictures/epoch_<n>/."""
    found: dict[str, list[tuple[int | None, Path]]] = {}
    for file in sorted(folder.glob("pictures/epoch_*/*.png")):
        if match := EPOCH.fullmatch(file.parent.name):
            found.setdefault(file.stem, []).append((int(match[1]), file))
    for states in found.values():
        states.sort(key=lambda state: state[0] or 0)
    for file in sorted(folder.glob("*.png")):
        epoch, states = epoch_of(file), found.setdefault(file.stem, [])
        if epoch is None or all(epoch != state for state, _ in states):
            states.append((epoch, file))
    return found


def epoch_of(file: Path) -> int | None:
    """The epoch that a picture of ours says it is of."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return int(image.info.get("epoch", ""))
    except (OSError, ValueError, TypeError):
        return None


def column(rows: list[Row], name: str, over: str = "step") -> tuple[list[float], list[float]]:
    """(x, y) of a metric, where a row has it."""
    pairs = [(row[over], row[name]) for row in rows if name in row and over in row]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
