"""The other ranks that Lightning starts as processes of this one: how their ends and ours go together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

from lightning import Trainer
from lightning.pytorch.strategies.launchers import subprocess_script

from ssl_lightning.callbacks.interrupt import keep_lightning_out
from ssl_lightning.signals import NUMBERS, STOPPED

LOOK_EVERY = 0.5  # seconds
GRACE = 30.0  # seconds that the other ranks have to stop once one of them has
PARENT = "SSL_LIGHTNING_PARENT"  # tells a started rank which process started it

_children: list[subprocess.Popen[bytes]] = []


def take_over(trainer: Trainer) -> Trainer:
    """Handle signals and the ends of child processes here, in Lightning's place.

    Its observer kills all ranks when one has ended with another status than 0, which here is how a run ends that was
    told to stop.
    """
    keep_lightning_out(trainer)
    subprocess_script._launch_process_observer = observe
    if PARENT not in os.environ:
        os.environ[PARENT] = str(os.getpid())
    return trainer


def observe(child_processes: list[subprocess.Popen[bytes]]) -> None:
    """Watch these processes from a thread."""
    _children[:] = child_processes
    threading.Thread(target=_watch, args=(child_processes,), daemon=True, name="child-process-observer").start()


def _watch(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    stopped_at = None
    while True:
        time.sleep(LOOK_EVERY)
        codes = [process.poll() for process in processes]
        for rank, code in enumerate(codes, 1):
            if code not in (None, 0, *STOPPED):
                dead(rank, code, processes)
        stopped = next((code for code in codes if code in STOPPED), None)
        if stopped is not None:
            stopped_at = stopped_at or time.monotonic()
            if time.monotonic() - stopped_at > GRACE:  # this process waits for that rank, and cannot know
                _kill(processes)
                os._exit(stopped)
        elif None not in codes:
            return


def dead(rank: int, code: int | None, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """A rank has died: the others, which would wait for it, are ended too."""
    _kill(processes)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()


def stop_all(number: int) -> None:
    """Pass a signal on: to the ranks that this process started, which are then waited for, or to the one it is of.

    For a signal outside of training, where the ranks do not agree on a step to stop at.
    """
    if os.environ.get(PARENT) == str(os.getppid()) and number in NUMBERS:
        os.kill(os.getppid(), number)
    for process in _children:
        process.send_signal(number)
    end = time.monotonic() + GRACE
    for process in _children:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    _children.clear()
