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
from ssl_lightning.signals import NUMBERS, STOPPED, announce, status_of_process

LOOK_EVERY = 0.5  # seconds
GRACE, SHORT_GRACE = 30.0, 2.0  # seconds that the other ranks have to stop once one of them has
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
    patience = None
    while True:
        time.sleep(LOOK_EVERY)
        codes = [process.poll() for process in processes]
        told = next((code for code in map(status_of_process, filter(None, codes)) if code is not None), None)
        for rank, code in enumerate(codes, 1):
            if code and status_of_process(code) is None:
                dead(rank, code, processes)
        if told is not None:
            # This process may wait for that rank, where it cannot hear a signal. A rank that was told before it could
            # handle one ends with that signal itself, and nobody else knows.
            patience = patience or time.monotonic() + (GRACE if set(codes) & set(STOPPED) else SHORT_GRACE)
            if time.monotonic() > patience:
                _kill(processes)
                announce("a rank was stopped while the others waited for it; what was saved is kept")
                os._exit(told)
        elif None not in codes:
            return


def dead(rank: int, code: int | None, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """A rank has died: the others, which would wait for it, are ended too."""
    _kill(processes)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()


def stop(number: int) -> None:
    """Wait for the ranks that this process started to stop.

    With a signal's number they are told first, as is the rank that started this one: outside of training the ranks do
    not agree on a step to stop at.
    """
    if number in NUMBERS:
        if os.environ.get(PARENT) == str(os.getppid()):
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
