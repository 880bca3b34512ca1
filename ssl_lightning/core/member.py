"""One of the processes that have come to the hub, and its words."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

LONGEST_LINE = 1 << 20


class Member:
    """A process that has come, and what of its words has not been read yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self.rest = connection, b""
        self.rank, self.pid, self.host = -1, 0, ""
        self.bye = self.gone = self.quiet = False

    def send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """The messages that have come."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.gone = not data or len(self.rest) > LONGEST_LINE
        *lines, self.rest = (self.rest + data).split(b"\n")
        try:
            return [message for line in lines if isinstance(message := json.loads(line), dict)]
        except ValueError:
            self.gone = True
            return []
