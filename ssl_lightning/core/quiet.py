"""A block in which this thread prints nothing: `progress=False` of the Python entry."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Quiet(io.TextIOBase):
    """Stands in for sys.stdout: what the thread that made it writes is dropped, all else goes to the real stream."""

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
    """Drop what this thread prints; warnings and errors, on stderr, stay."""
    with contextlib.redirect_stdout(Quiet(sys.stdout)):
        yield


def is_quiet() -> bool:
    """Is this thread in such a block?"""
    return isinstance(sys.stdout, Quiet) and sys.stdout.thread == threading.get_ident()
