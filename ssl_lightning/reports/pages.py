"""Writing a page: the one place that does, always whole or not at all, and never the end of a run."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_lightning.core import files
from ssl_lightning.core.launch import is_main_process

log = logging.getLogger("ssl_lightning")

FILE = "report.html"


@contextlib.contextmanager
def quietly(what: str) -> Iterator[None]:
    """What fails here is one line of warning."""
    try:
        yield
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        log.warning("%s could not be written, and nothing else is lost: %s", what, why)


def write(folder: Path) -> Path | None:
    """Draw the page of a run's folder; None where there is nothing to show."""
    from ssl_lightning.reports import page, read

    run = read.run(folder)
    table = run.results.get("table") or run.results.get("rows")
    if not (run.rows or run.parts or run.kept.arrays or table):
        return None
    files.write_atomic(folder / FILE, page.html_of(run))
    return folder / FILE


def write_quietly(folder: Path) -> Path | None:
    """The same at the end of a stage: rank 0 alone writes, and what fails is a warning."""
    with quietly("the page of this run"):
        return write(folder) if is_main_process() else None
    return None


def note_health(folder: Path, results: dict[str, Any]) -> None:
    """Add to results what the run's health is, in sentences; nothing of a stage without curves."""
    if not is_main_process():
        return
    with quietly("the health of this run"):
        from ssl_lightning.reports import health, read

        run = read.run(folder)
        if run.rows:
            found = health.findings(run.rows, results, run.config, run.kept.about)
            results["health"] = health.words(found, timed=False)
