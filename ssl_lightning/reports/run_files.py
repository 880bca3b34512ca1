"""A run's folder as reports read it: its config, its results, its curves; and which folders a user means."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from ssl_lightning.core import plain_yaml, secrets
from ssl_lightning.core.errors import UserError, plain
from ssl_lightning.core.words import KINDS
from ssl_lightning.runs import places

COSTS = ("samples_per_second", "seconds")
CURVES = ("val/knn_top1", "val/probe_top1", "train/loss")
MOST_ROWS = 2000  # of a table of metrics; of a longer one every n-th is drawn


@dataclass(frozen=True)
class Run:
    """One run's folder, as it stands."""

    path: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any] | None  # None: it has not finished
    curves: Mapping[str, list[tuple[float, float]]] = field(default_factory=dict)  # of each metric (step, value)
    epoch: int = 0  # the last that metrics.csv has, from 1

    @property
    def choices(self) -> Mapping[str, Any]:
        found = self.config.get("choices")
        return found if isinstance(found, Mapping) else {}

    @property
    def metric(self) -> Mapping[str, Any]:
        """The task's main metric as results.json names it: `name`, `higher_is_better`; empty where it does not."""
        found = (self.results or {}).get("metric")
        return found if isinstance(found, Mapping) else {}

    @property
    def section(self) -> tuple[str, str, str]:
        """(stage, data, task): what runs must have in common for their figures to mean the same."""
        stage, data, task = (str(self.choices.get(part) or "?") for part in ("stage", "data", "task"))
        return stage, data, "classify" if task == "?" else task

    @property
    def root(self) -> str:
        """`data.root` on one line and without secrets; "" of data that have none."""
        data = self.config.get("data")
        root = data.get("root") if isinstance(data, Mapping) else None
        return plain(secrets.hide(str(root))) if root is not None else ""

    @property
    def fingerprint(self) -> str:
        """Of the data, wherever they lie; "" of a run without one."""
        found = (self.results or {}).get("data_fingerprint")
        return str(found.get("sha256") or "") if isinstance(found, Mapping) else ""

    @property
    def origin(self) -> tuple[str, str]:
        """What runs of equal settings differ in: the seed, and the weights that they are about."""
        return str(self.config.get("seed")), str(self.config.get("ckpt_sha256") or self.config.get("ckpt"))

    @property
    def status(self) -> str:
        if self.results is not None:
            return "done"
        epochs = (self.config.get("trainer") or {}).get("max_epochs")
        return f"unfinished, epoch {self.epoch} of {epochs}" if self.epoch else "unfinished"

    def measured(self) -> dict[str, float]:
        """Its figures; of an unfinished run the last of its training."""
        if self.results is not None:
            found = {key: value for key, value in self.results.items() if key.startswith(tuple(f"{k}_" for k in KINDS))}
            found |= {key: self.results.get(key) for key in COSTS}
        else:
            last = {key: points[-1][1] for key, points in self.curves.items() if points}
            found = {"knn_top1": last.get("val/knn_top1"), "linear_top1": last.get("val/probe_top1")}
        return {key: float(value) for key, value in found.items() if _isnumber_of(value)}


def find(asked: str | Sequence[str], least: int = 2) -> list[Path]:
    """The run folders that are meant: each a run's folder, a folder of runs (a sweep's), or a pattern of one of these.

    Raises:
        UserError: one of them leads to no run, or there are fewer than `least` in all.
    """
    found: list[Path] = []
    for one in [asked] if isinstance(asked, str) else asked:
        text = str(Path(one).expanduser())
        folders = (
            [Path(match) for match in sorted(glob(text))]
            if has_magic(text) and not Path(text).exists()
            else [Path(text)]
        )
        runs = [run for folder in folders for run in _runs_in(folder)]
        if not runs:
            fix = "give runs/<name>, a sweep's folder, or a pattern"
            raise UserError(f"stage.runs: {secrets.hide(one)} is no run's folder and holds none; {fix}")
        found += runs
    unique = list(dict.fromkeys(found))
    if len(unique) < least:
        only = f"{unique[0]} is the only run" if unique else "there is no run"
        raise UserError(f"stage.runs: {only}; give two or more, stage.runs=[runs/a,runs/b]")
    return unique


def _runs_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    if places.is_run(folder) and not (folder / "sweep.csv").is_file():
        return [folder]
    return [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and places.is_run(entry)]


def read(path: Path) -> Run:
    """A run's folder. A damaged results.json counts as none."""
    try:
        results = plain_yaml.read_json(path / "results.json") if (path / "results.json").is_file() else None
    except UserError:
        results = None
    config = secrets.mask(places.config_of(path))
    curves, epoch = _curves(path / "metrics.csv")
    return Run(path, config, secrets.mask(results) if isinstance(results, dict) else None, curves, epoch)


def _curves(file: Path) -> tuple[dict[str, list[tuple[float, float]]], int]:
    """(of each metric that is drawn (step, value), the last epoch from 1)."""
    if not file.is_file():
        return {}, 0
    with open(file, newline="", encoding="utf-8", errors="replace") as text:
        rows = list(csv.DictReader(text))
    found: dict[str, list[tuple[float, float]]] = {}
    last = 0
    for row in rows:
        step, epoch = number_of(row.get("step")), number_of(row.get("epoch"))
        last = max(last, int(epoch) + 1 if math.isfinite(epoch) else 0)
        for key in CURVES:
            value = number_of(row.get(key))
            if math.isfinite(step) and math.isfinite(value):
                found.setdefault(key, []).append((step, value))
    return {key: points[:: max(1, len(points) // MOST_ROWS)] for key, points in found.items()}, last


def number_of(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _isnumber_of(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
