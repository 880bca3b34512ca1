"""stage=compare: runs beside one another, as a page and a table."""

from pathlib import Path
from typing import Any

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.reports import compare
from ssl_lightning.reports.gathered import Section
from ssl_lightning.reports.run_files import find
from ssl_lightning.runs.folder import RunFolder, writing


def run(run: RunFolder, runs: str | list[str] | None = None) -> dict[str, Any]:
    """Writes `compare.html` and `compare.csv`. What differs between the configs is found here and names the rows.

    Runs that are equal but for their seed are one group. The comparison is made anew at each call.

    Args:
        runs: folders of runs, a folder of runs (a sweep's), or patterns of these, such as runs/byol-*.

    Raises:
        UserError: there is none, one of them leads to no run, or there are fewer than two in all.
    """
    if not runs:
        raise UserError("stage.runs: name the runs to compare, stage.runs=[runs/a,runs/b], or a sweep's folder")
    paths = [path for path in find(runs) if path.resolve() != run.path.resolve()]
    if len(paths) < 2:
        raise UserError("stage.runs: give two runs or more to compare, stage.runs=[runs/a,runs/b]")
    progress.say(f"comparing {len(paths)} runs")
    if not is_main():
        return {}
    with writing(run.path):
        found = compare.write(paths, run.path)
    return {
        "method": _each(paths, found, "method"),
        "data": ", ".join(dict.fromkeys(part.data for part in found)),
        "runs": len(paths),
        "groups": [dict(row) for row in compare.table(found)],
        "verdict": " ".join(_told(part, len(found) > 1) for part in found),
        "files": [str(run.path / "compare.csv"), str(run.path / "compare.html")],
    }


def _each(paths: list[Path], found: list[Section], part: str) -> str:
    """What was chosen in one group of the config, all of it."""
    runs = [run for one in found for group in one.groups for run in group.runs]
    return ", ".join(dict.fromkeys(str(run.choices.get(part, "?")) for run in runs))


def _told(part: Section, several: bool) -> str:
    return (f"{part.stage} on {part.data}: " if several else "") + compare.conclusion(part).replace(
        "±", "+-"
    )  # for any terminal
