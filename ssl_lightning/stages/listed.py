"""What a fine-tuned network says of each test item, in a table for people, the worst first."""

import csv
import io
from pathlib import Path
from typing import Any

from ssl_lightning.core import files, progress, secrets
from ssl_lightning.core.cells import cell
from ssl_lightning.core.distributed import is_main
from ssl_lightning.core.errors import plain
from ssl_lightning.core.one_line import text
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import say
from ssl_lightning.evaluation.features import Features

SHOWN, RIGHT = 3, 2  # lines in the terminal: of the worst, and of those without an error
LONGEST = 60  # characters of a cell in the terminal


def write_listed(task: Task, data: DataModule, outputs: Features, folder: Path) -> None:
    """Write `<task.listed_in>` of the test items, path first, and show some of its rows; rank 0 alone does.

    A task without such a list, and data whose items have no files, write none of it, or row numbers. What fails is one
    line: the run has its results without this.
    """
    if not task.listed_in or not is_main():
        return
    try:
        rows = _rows(task, data, outputs)
        if rows:
            files.write_atomic(folder / task.listed_in, _table(rows))
            _show(rows, folder / task.listed_in)
    except Exception as error:
        say(f"{task.listed_in} was not written: {text(error)}")


def _rows(task: Task, data: DataModule, outputs: Features) -> list[dict[str, Any]]:
    """The rows of all test items that have a target: the most errors first, then in the data's order."""
    outputs = outputs.labelled()
    paths = data.test_set.paths
    named = [paths[i] if paths else i for i in outputs.indices.tolist()]
    told = task.listed(outputs.x, outputs.labels)
    rows = [{"path": path, **row} for path, row in zip(named, told, strict=True)]
    return sorted(rows, key=lambda row: -row["errors"])


def _table(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(rows[0])
    table.writerows([cell(value) for value in row.values()] for row in rows)
    return file.getvalue()


def _show(rows: list[dict[str, Any]], path: Path) -> None:
    wrong, right = [row for row in rows if row["errors"]], [row for row in rows if not row["errors"]]
    progress.say(f"{len(right)} of {len(rows)} test items without an error; all in {path}, the worst first")
    for row in (*wrong[:SHOWN], *right[:RIGHT]):
        shown = row | {"path": Path(str(row["path"])).name}
        progress.say("  " + ", ".join(f"{key} {_short(value)}" for key, value in shown.items()))


def _short(value: Any) -> str:
    found = plain(secrets.hide(str(value)))
    return found if len(found) <= LONGEST else f"{found[: LONGEST - 3]}..."
