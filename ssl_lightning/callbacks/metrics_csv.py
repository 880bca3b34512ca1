"""`metrics.csv`: every logged row of a run in one table that survives kills and resumes.

Lightning's CSVLogger deletes its file on resume and rewrites all of it at each save; this one only appends.
"""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.core import files

FIXED = ("step", "epoch")  # the columns that say where a row stands


class MetricsCSV(Logger):
    """Appends each row to `<run_path>/metrics.csv` at once, so a killed process loses none.

    Columns: step (of the optimizer, from 0), epoch, and one per metric, blank where a row lacks it. A metric never seen
    before adds a column, and the first row after a resume drops what the interrupted run had logged beyond its
    checkpoint, which holds the number of rows; for either the file is written anew beside itself and renamed.

    Args:
        run_path: the run's folder.
    """

    def __init__(self, run_path: str | Path) -> None:
        super().__init__()
        self.path = Path(run_path) / "metrics.csv"
        self._columns: list[str] = []  # empty until the file on disk has been looked at
        self._rows = 0
        self._kept: int | None = None  # rows of the file on disk that are this run's; None: an old checkpoint's

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def experiment(self) -> None:
        """Nothing to hand out: Lightning asks every logger for one."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run's folder holds its config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": str(step or 0)} | {name: _text(value) for name, value in metrics.items()}
        if not self._columns:
            self._open(row)
        new = [name for name in row if name not in self._columns]
        if new:
            rows = self._read()
            self._columns += new
            self._rewrite(rows)
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)
        self._rows += 1

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: how many rows there are by now, all of them on disk."""
        if self._columns:
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())
        return {"rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows = self._kept = state["rows"]

    def _open(self, first: Mapping[str, str]) -> None:
        """Makes the file, or keeps the rows of an earlier one that come before `first`, the first of this process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = self._read() if self.path.exists() else []
        columns = list(rows[0]) if rows else []
        if self._kept is None:
            rows = [row for row in rows if _before(row, first)]
        else:
            rows = rows[: self._kept]
            columns = [name for name in columns if any(row[name] for row in rows)]
        self._columns, self._rows = list(dict.fromkeys([*FIXED, *columns])), len(rows)
        self._rewrite(rows)

    def _read(self) -> list[dict[str, str]]:
        with open(self.path, newline="") as file:
            # A row cut short by a power failure has missing fields, which come as None.
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with files.atomic(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def _text(value: float) -> str:
    return f"{float(value):.7g}"


def _before(row: Mapping[str, str], first: Mapping[str, str]) -> bool:
    """Whether an old row stays: it is of an earlier step, or of the same one and about other metrics."""
    if int(row["step"]) != int(first["step"]):
        return int(row["step"]) < int(first["step"])
    return not any(row.get(name) for name in first if name not in FIXED)
