"""What a person watching sees of long work outside of a training: a bar in a terminal, now and then a line in a file.

Silent until a run switches it on (`watched`); rank 0 alone shows anything. Nothing here touches what is computed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ssl_lightning.core.launch import is_main_process
from ssl_lightning.core.words import clock

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
LINE_SECONDS = 30.0  # where there is no terminal, a line so often


class _State:
    watched = False
    told_at = 0.0  # when the last line was printed
    names: list[str] = []  # noqa: RUF012  (of the phases that are open, the innermost last)
    bar: Progress | None = None
    task: Any = None


def watched(on: bool) -> None:
    """Show progress from now on, or none."""
    _State.watched = on


def say(line: str) -> None:
    """A line at once, where progress is shown."""
    if _State.watched and is_main_process():
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
        note()


def note() -> None:
    """Something has been printed just now."""
    _State.told_at = time.perf_counter()


@contextmanager
def phase(name: str) -> Iterator[None]:
    """A block of work that has a name; in a terminal it is shown while it lasts."""
    _State.names.append(name)
    first = len(_State.names) == 1 and _State.watched and is_main_process()
    if first and sys.stdout.isatty():
        _State.bar, _State.task = _started(name)
    _show(None, None)
    try:
        yield
    finally:
        _State.names.pop()
        if first and _State.bar is not None:
            _State.bar.stop()
            _State.bar = None
        elif _State.names:
            _show(None, None)


def steps(of: Iterable[T], name: str = "") -> Iterator[T]:
    """The same items one by one, each counted as a step of the open phase, or of one of this name."""
    if name:
        with phase(name):
            yield from steps(of)
        return
    if not _State.names or not _State.watched:
        yield from of
        return
    total = len(of) if isinstance(of, Sized) else None
    began = time.perf_counter()
    for done, item in enumerate(of, start=1):
        yield item
        left = None
        if total:
            left = (time.perf_counter() - began) / done * (total - done)
        _show(done, total, left)


def _show(done: int | None, total: int | None, left: float | None = None) -> None:
    if not _State.watched or not is_main_process():
        return
    name = ": ".join(_State.names[-2:])
    if _State.bar is not None:
        _State.bar.update(_State.task, description=name, completed=done or 0, total=total)
    elif time.perf_counter() - _State.told_at >= LINE_SECONDS:
        count = f"  {done}/{total}" if done and total else f"  {done}" if done else ""
        say(f"{name}{count}{f'  {clock(left)} left' if left else ''}")


def _started(name: str) -> tuple[Progress, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(), refresh_per_second=4, transient=True)  # of this very stdout
    task = bar.add_task(name, total=None)
    bar.start()
    return bar, task
