"""Signals that stop a run: which they are, what they do at each moment, and the exit status they leave.

SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP end a run with status 75 (EX_TEMPFAIL of sysexits.h: stopped, start it again),
Ctrl-C with 130. In a training the step under way is finished and saved first (callbacks/interrupt.py).
"""

from __future__ import annotations

import _thread
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ssl_lightning.core import secrets
from ssl_lightning.core.errors import Interrupted

AGAIN, CTRL_C = 75, 130
STOPPED = (AGAIN, CTRL_C)  # exit statuses of a run that a signal stopped
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
NUMBERS = tuple(int(getattr(signal, name)) for name in NAMES if hasattr(signal, name))  # Windows has two of them
PATIENCE = 2.0  # seconds in which a second signal is taken for the same one


def status(number: int) -> int:
    """The exit status of a run that this signal stopped."""
    return CTRL_C if number == signal.SIGINT else AGAIN


def status_of_process(code: int) -> int | None:
    """75 or 130 where a process' exit code says that a signal stopped it, be it before it could handle one."""
    if -code in NUMBERS:
        return status(-code)
    return code if code in STOPPED else None


class Watch:
    """Receives the signals of this process while it is entered; entering it again inside changes nothing.

    The first signal raises `Interrupted`, or, while `holding`, only sets `told` for the training to see at the end of
    its step. The same again within PATIENCE is ignored, for terminals and schedulers may tell a thing twice; a later
    one always raises. A signal that was ignored when the process began (nohup) stays so.
    """

    def __init__(self) -> None:
        self.told = 0  # the first signal received, 0 for none
        self.holding = False
        self.farewell: Callable[[int, str], Any] | None = None  # tells the other processes of a run, and ends this one
        self.quiet = False  # whether another process of the run says what is to be said
        self._program = False  # whether the whole process is this program, not a user's own
        self._leaving: int | None = None  # the exit status, once the process is about to end
        self._importing_since = 0.0
        self._told_at = 0.0
        self._depth, self._pid = 0, 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Watch:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set handlers, and only there do they run
        if self._depth == 0 or self._pid != os.getpid():
            self.told, self.holding, self._depth, self._pid = 0, False, 0, os.getpid()
            self._previous = {}
            for number in NUMBERS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self.receive)
        self._depth += 1
        return self

    def __exit__(self, *_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._depth -= 1
        if self._depth == 0:
            self.told, self.holding = 0, False
            for number, handler in self._previous.items():
                if handler is not None and signal.getsignal(number) == self.receive:
                    signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if os.getpid() != self._pid:
            return  # a forked helper, told together with all processes of its group: its parent will end it
        if self._leaving is not None:
            os._exit(self._leaving)
        now = time.monotonic()
        if self.told and now - self._told_at <= PATIENCE:
            return
        if self.holding and not self.told:
            self._note(number, now)
            if sys.stderr is not None and os.isatty(2):  # not print: the signal may have come in the middle of one
                os.write(2, b"\nfinishing this step and saving; once more stops at once\n")
        elif importing(frame):
            self._after_import(number, now)
        else:
            self._note(number, now)
            raise Interrupted(status(number))

    def _note(self, number: int, now: float) -> None:
        if not self.told:
            self.told, self._told_at = number, now

    def _after_import(self, number: int, now: float) -> None:
        """Come again when no import is under way; a program that imports for long just ends: it has nothing to save."""
        self._importing_since = self._importing_since or now
        if self._program and now - self._importing_since > PATIENCE:
            if self.farewell is not None:
                self.farewell(status(number), words("nothing was lost"))
            if not self.quiet:
                os.write(2, f"{words('nothing was lost')}\n".encode())
            os._exit(status(number))
        _thread.start_new_thread(tell_again, (number,))  # threading's own locks may be held at this moment

    @contextmanager
    def held(self) -> Iterator[None]:
        """In this block the first signal raises nothing; look at `told`."""
        before, self.holding = self.holding, True
        try:
            yield
        finally:
            self.holding = before

    def stopped(self, error: BaseException) -> bool:
        """Is this what a signal brought about, by itself or as a consequence?"""
        return isinstance(error, Interrupted | KeyboardInterrupt) or (bool(self.told) and isinstance(error, Exception))

    def program(self) -> None:
        """From here to its end the process is ours."""
        self._program = True
        self.__enter__()

    def leave(self, code: int) -> None:
        """The process is about to end with this status: a signal that still comes may hasten it, not change it."""
        self._leaving = code


WATCH = Watch()


def importing(frame: FrameType | None) -> bool:
    """Is an import under way? An exception thrown into one may be lost there, or leave half a module behind."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def tell_again(number: int) -> None:
    """Send this process the signal once more, a moment later."""
    time.sleep(0.05)
    os.kill(os.getpid(), number)


def program() -> str:
    """How this program was called."""
    return "ssl-lightning" if sys.argv[0].endswith("ssl-lightning") else "python -m ssl_lightning"


def announce(where: str) -> None:
    """Say that the run was stopped, what is kept, and how to go on."""
    print(words(where), file=sys.stderr)


def words(where: str, again: str | None = None) -> str:
    """The line that says that a run was stopped, what is kept, and how to go on (`again`; None: this command line)."""
    if again is not None:
        return f"interrupted; {where}. {again}"
    line = shlex.join(secrets.mask_words(word for word in sys.argv[1:] if not word.startswith("resume=")))
    return f"interrupted; {where}. Go on with: {program()} {line}".rstrip()
