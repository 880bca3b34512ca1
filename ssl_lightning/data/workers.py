"""Data workers: the signals they leave to their parent, their end, and in one line what went wrong with one."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

from torch.utils.data._utils import signal_handling

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.signals import NUMBERS

GO_ON = "run the same command again to continue from the last checkpoint"
FEWER = "set data.num_workers lower"
SEE = "see its message above; data.num_workers=0 loads without workers"
SAID = (  # by torch or the system, and what it means
    (
        r"killed by signal: Bus error|shared memory|</torch_\S*>: |/dev/shm",
        f"a data worker ran out of shared memory (/dev/shm): give it more room (docker run --shm-size), or {FEWER}",
    ),
    (
        r"worker \(pid (\d+)\) is killed by signal: Killed",
        f"a data worker (process {{0}}) was killed (signal 9), often for lack of memory: {FEWER}",
    ),
    (r"worker \(pid (\d+)\) is killed by signal: ([^.]*)", f"a data worker (process {{0}}) was ended by {{1}}: {SEE}"),
    (r"worker \(pid (\d+)\) exited unexpectedly", f"a data worker (process {{0}}) ended by itself: {SEE}"),
    (r"worker \(pid\(s\) ([\d, ]+)\) exited", f"data workers (processes {{0}}) ended by themselves: {SEE}"),
    (r"Too many open files", f"the data workers have too many files open: raise `ulimit -n`, or {FEWER}"),
    (r"MemoryError|annot allocate memory|can't allocate memory", f"a data worker has run out of memory: {FEWER}"),
)
_started: list[tuple[Any, int]] = []  # workers, and the key under which torch knows them
_waiting: _Wait | None = None  # for a batch; read by a thread
_guarded = 0  # the process that has that thread
_ending = 0  # the process at whose end its workers are ended
LOOK = 0.1  # seconds between two looks at whether a wait has taken too long
FROM_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process (\d+)")
SHARED = re.compile(r"DataLoader|</torch_|shared memory|/dev/shm")


def begin(worker: int) -> None:
    """What a new worker does first: leave it to its parent to stop.

    A signal to all processes of a group, from a terminal or a scheduler, reaches the workers too. The parent finishes
    its step, for which it may need them, and ends them itself.
    """
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def watch(iterator: Any) -> Any:
    """See to it that the workers of a loader's iterator end with this process; returns it.

    At its end Python asks them to by SIGTERM, which they ignore, and waits. The processes are kept, not the iterator:
    one that was collected in the middle of an error may have left them behind.
    """
    global _ending
    if _ending != os.getpid():  # a forked process has no part in its parent's workers, nor in its plans
        _ending = os.getpid()
        _started.clear()
        Finalize(None, _end_all, exitpriority=100)
    _started[:] = [(worker, owner) for worker, owner in _started if worker.is_alive()]
    known = {worker for worker, _ in _started}
    _started.extend((worker, id(iterator)) for worker in iterator._workers if worker not in known)
    return iterator


def _end_all() -> None:
    for worker, owner in _started:
        with suppress(Exception):
            signal_handling._remove_worker_pids(owner)
        worker.kill()


@dataclass
class _Wait:
    """One wait for a batch: of which workers, and until when (`time.monotonic`)."""

    iterator: Any
    until: float
    hung: bool = False


def guard() -> None:
    """Start this process's one thread that looks after waits; to be called before there are workers.

    A thread for each wait would be started while workers may end: torch then raises an error in the main thread at any
    line, in the middle of a start too, and Python prints a traceback from the half-made thread.
    """
    global _guarded
    if _guarded != os.getpid():
        _guarded = os.getpid()
        threading.Thread(target=_look, name="data workers", daemon=True).start()


def _look() -> None:
    while True:
        time.sleep(LOOK)
        wait = _waiting
        if wait is not None and not wait.hung and time.monotonic() > wait.until:
            wait.hung = True
            for worker in getattr(wait.iterator, "_workers", []):
                worker.kill()  # which torch notices


@contextmanager
def answering(iterator: Any, timeout: float) -> Iterator[None]:
    """Wait for a batch, at most so many seconds; when one cannot come, the workers are killed.

    Torch's own timeout would take the place of its looks at whether the workers live.
    """
    global _waiting
    before, _waiting = _waiting, _Wait(iterator, time.monotonic() + timeout)
    wait = _waiting
    try:
        yield
    except Exception as error:
        dead = None if FROM_WORKER.search(str(error)) else first_dead(iterator)
        end(iterator)
        if wait.hung:
            help = "check the disk that the data is on, or set data.worker_timeout higher"
            raise UserError(f"no data worker has answered for {timeout:g} seconds: {help}; {GO_ON}") from error
        if dead is not None:  # torch may say so, or say that a connection was lost
            raise RuntimeError(dead) from error
        raise
    finally:
        _waiting = before


def end(iterator: Any) -> None:
    """Kill the workers of a loader's iterator; one that hangs would hold up the end of the run."""
    with suppress(Exception):  # torch's own bookkeeping: without it the end of a worker counts as a failure
        signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
    for worker in getattr(iterator, "_workers", []):
        worker.kill()
    with suppress(Exception):
        iterator._shutdown_workers()


def first_dead(iterator: Any) -> str | None:
    """A worker that has ended by itself, in torch's words, or None."""
    for worker in getattr(iterator, "_workers", []):
        worker.join(0.2)
        code = worker.exitcode
        if code:
            what = f"is killed by signal: {signal.strsignal(-code)}" if code < 0 else "exited unexpectedly"
            return f"DataLoader worker (pid {worker.pid}) {what}"
    return None


def explain(error: BaseException) -> UserError | None:
    """What a failed worker means for the user, or None where the error is not one of a worker, or a bug.

    Torch raises the death of a worker in whatever the main process is doing, so the whole run is watched for it.
    """
    text = str(error)
    caught = FROM_WORKER.search(text)
    if caught and caught[1] == "UserError":
        return UserError(text.rsplit("UserError: ", 1)[-1].strip())
    if not caught and not SHARED.search(text):
        return None
    for pattern, meaning in SAID:
        found = re.search(pattern, text)
        if found:
            return UserError(f"{meaning.format(*found.groups())}; {GO_ON}")
    return None


def named(error: BaseException) -> str | None:
    """`data worker 0: ValueError: ...` for an error that a worker has raised."""
    caught = FROM_WORKER.search(str(error))
    if caught is None:
        return None
    lines = [line for line in str(error).splitlines() if line.startswith(caught[1]) or f".{caught[1]}: " in line]
    return f"data worker {caught[2]}: {lines[-1] if lines else caught[1]}"
