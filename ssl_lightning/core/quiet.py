"""A block in which this thread prints nothing: `progress=False` of the Python entry."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any


class Quiet(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr: what the thread that made it writes is dropped, all else is passed on."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream, self.thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() != self.thread:
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        if threading.get_ident() != self.thread:
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:  # encoding, buffer, fileno ...
        return getattr(self.stream, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what this thread prints, on stdout and stderr; Python's own warnings are still shown."""
    real, show = sys.stderr, warnings.showwarning

    def shown(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        show(message, category, filename, lineno, file or real, line)

    with contextlib.redirect_stdout(Quiet(sys.stdout)), contextlib.redirect_stderr(Quiet(real)):
        warnings.showwarning = shown
        try:
            yield
        finally:
            warnings.showwarning = show


def is_quiet() -> bool:
    """Is this thread in such a block?"""
    return isinstance(sys.stdout, Quiet) and sys.stdout.thread == threading.get_ident()
