"""Writing a page: the one place that does, always whole or not at all, and never the end of a run."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_lightning.core import files
from ssl_lightning.core.launch import is_main_process

log = logging.getLogger("ssl_lightning")

FILE = "report.html"
SHOWN = ("table", "rows", "per_class")  # of results.json: what a page has something to show of, without curves


@contextlib.contextmanager
def quietly(what: str) -> Iterator[None]:
    """What fails here is one line of warning."""
    try:
        yield
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        log.warning("%s could not be written, and nothing else is lost: %s", what, why)


def write(folder: Path, command: Sequence[str] = ()) -> Path | None:
    """Draw the page of a run's folder; None where there is nothing to show.

    `command`: the words of the run's command line, kept with it where no part of the run has kept them.
    """
    from ssl_lightning.reports import facts, kept, page, read

    run = read.run(folder)
    if not (run.rows or run.parts or run.kept.arrays or any(run.results.get(key) for key in SHOWN)):
        return None
    if command and "command" not in run.kept.about:
        kept.add(folder, facts.of_command(command), {})
        run = read.run(folder)
    files.write_atomic(folder / FILE, page.html_of(run))
    return folder / FILE


def write_quietly(folder: Path, command: Sequence[str] = ()) -> Path | None:
    """The same at the end of a stage: rank 0 alone writes, and what fails is a warning."""
    with quietly("the page of this run"):
        return write(folder, command) if is_main_process() else None
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
