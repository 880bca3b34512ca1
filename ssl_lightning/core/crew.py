"""The processes of one run talk about beginnings and ends: rank 0's decisions, a mistake, a death, the one last line.

A hub listens where rank 0 is (in the command that started all ranks, or in a thread of rank 0 under a launcher), and
each rank keeps one connection to it. A process that dies closes its connection, whatever killed it, so the others learn
of it at once. Nothing but JSON travels. The port is the one that torch will use later: the hub has left it by then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ssl_lightning.core import secrets
from ssl_lightning.core.errors import UserError, plain
from ssl_lightning.core.hub import SILENCE, Hub, mute
from ssl_lightning.core.launch import LOOPBACK, OWN, Launch
from ssl_lightning.core.signals import WATCH

MISTAKE = 2  # the exit status of a user's mistake
CLEARING = 5.0  # seconds that the main thread may still need for what it has begun to remove
JOIN_SECONDS = 300.0  # in which all processes of a run must have begun
AFTER_A_MISTAKE = 5.0  # in which a rank that found a mistake looks for the others, which may have found the same
# What collectives say when another rank has died or does not answer.
OF_OTHERS: tuple[str, ...] = (
    "gloo",
    "NCCL",
    "ProcessGroup",
    "process group",
    "Connection closed by peer",
    "Connection reset by peer",
)
OF_OTHERS += ("Broken pipe", "Timed out waiting", "Socket Timeout", "pair closure", "TCPStore")

_cleanups: list[Callable[[bool], None]] = []
_clearing = threading.RLock()  # one thread may be at a cleanup when the other one ends the process


@contextlib.contextmanager
def clearing(cleanup: Callable[[bool], None]) -> Iterator[None]:
    """Call `cleanup(refused)` at the end, also where another rank's end is the end of this process.

    `refused`: whether a user's mistake is what ended it.
    """
    _cleanups.append(cleanup)
    refused = False
    try:
        yield
    except UserError:
        refused = True
        raise
    finally:
        with _clearing:
            if cleanup in _cleanups:
                _cleanups.remove(cleanup)
                cleanup(refused)


class Crew:
    """This rank's connection to the others."""

    def __init__(self, here: Launch, connection: socket.socket, hub: threading.Thread | None = None) -> None:
        self.rank, self.world, self._socket, self._hub = here.rank, here.world, connection, hub
        self._told: dict[str, Any] = {}
        self._news = threading.Condition()
        if hasattr(os, "register_at_fork"):  # a data worker must not keep it open
            os.register_at_fork(after_in_child=connection.close)
        self._send(hello=here.rank, world=here.world, token=token(), pid=os.getpid(), host=socket.gethostname())
        threading.Thread(target=self._listen, daemon=True, name="crew").start()

    def decide(self, decision: Callable[[], Any]) -> Any:
        """What rank 0 finds, on every rank; plain JSON. Raises what `decision` raises, on rank 0 alone."""
        if self.rank == 0:
            self._wait("all")
            self._send(decision=decision())
        return self._wait("decision")

    def meet(self, seconds: float) -> None:
        """Wait until every rank is here. `seconds`: how long one may keep the others waiting, here and at the end."""
        self._send(meet=max(seconds, JOIN_SECONDS))  # some import for longer than others, which is no computing
        self._wait("met")

    def end(self, kind: str, code: int, text: str) -> NoReturn:
        """Report why this rank cannot go on; all ranks end, and the hub prints the text of the one that was the cause.

        `kind`: "user" (a mistake), "error" (an exception), "lost" (others did not answer), "stopped" (a signal).
        """
        self._send(report={"kind": kind, "code": code, "text": secrets.hide(text)})
        while True:  # the listening thread ends the process; a signal does not hasten it
            with contextlib.suppress(BaseException):
                time.sleep(60)

    @contextlib.contextmanager
    def at_work(self, interrupted: Callable[[BaseException], tuple[int, str]]) -> Iterator[Crew]:
        """A block that all ranks leave together: at its end, or all of them when one cannot go on.

        `interrupted` gives the exit status and the line to print for a run that a signal has stopped.
        """
        WATCH.farewell = partial(self.end, "stopped")
        try:
            yield self
            WATCH.farewell = None
        except UserError as error:
            self.end("user", MISTAKE, f"error: {plain(str(error))}")
        except BaseException as error:
            if WATCH.stopped(error):
                self.end("stopped", *interrupted(error))
            who = f"rank {self.rank} of {self.world} (process {os.getpid()} on {socket.gethostname()}) failed:"
            text = "".join(traceback.format_exception(error))
            self.end("lost" if of_others(error) else "error", 1, f"{who}\n{text}")
        self.leave()

    def leave(self) -> None:
        """This rank has done its work; returns when all have."""
        self._send(bye=True)
        self._wait("ended")
        if self._hub is not None:
            self._hub.join()

    def _send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # the hub's end is noticed by the listening thread
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _wait(self, key: str) -> Any:
        with self._news:
            while key not in self._told:
                self._news.wait()
            return self._told.pop(key)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            for line in self._socket.makefile("rb"):
                message = json.loads(line)
                if "quiet" in message:
                    self._be_quiet()
                elif "exit" in message:
                    self._exit(message["exit"], message.get("text", ""))
                with self._news:
                    self._told |= message
                    self._news.notify_all()
                if "ended" in message:
                    return
        lost = self.rank == 1 and not os.environ.get(OWN)  # one of the ranks says so; or the command that lost it
        self._exit(1, "error: rank 0 died without a word; was it killed, or out of memory?" if lost else "", lost)

    def _be_quiet(self) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        mute()  # the hub, if it is in this process, has kept the screen for itself
        self._send(quiet=True)

    def _exit(self, code: int, text: str, say: bool = False) -> NoReturn:
        if say:
            print(text, file=sys.stderr, flush=True)
        _clearing.acquire(timeout=CLEARING)
        while _cleanups:
            with contextlib.suppress(Exception):
                _cleanups.pop()(code == MISTAKE)
        report = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if report and text:  # which torchrun shows after all else
            extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
            with contextlib.suppress(OSError):
                Path(report).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))
        if self._hub is not None:
            self._hub.join(3)
        os._exit(code)


def of_others(error: BaseException) -> bool:
    """Is this what a collective says when another rank has died or does not answer?"""
    if type(error).__module__.startswith("torch") and type(error).__name__.startswith("Dist"):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in OF_OTHERS)


def last_word(here: Launch, text: str, code: int = MISTAKE) -> int:
    """A rank has found a mistake before all have met: rank 0 tells it, or has found the same and told it already."""
    with contextlib.suppress(UserError):
        join(here, AFTER_A_MISTAKE).end("user", code, text)
    return code


def token() -> str:
    """Tells one run's processes from another's that came to the same port."""
    names = (OWN, "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "PMIX_NAMESPACE", "LSB_JOBID")
    return hashlib.sha256("/".join(os.environ.get(name, "") for name in names).encode()).hexdigest()[:16]


def join(here: Launch, timeout: float | None = None) -> Crew:
    """Find the other processes. Raises UserError when they do not come."""
    timeout = JOIN_SECONDS if timeout is None else timeout
    again = _talking()  # the hub of a command serves the first run of its processes
    taken = here.agent_store or again  # torch listens at the port we know
    if here.rank > 0 or (os.environ.get(OWN) and not again):
        port = _tell_port(here, timeout, None) if taken else here.port or 0
        return Crew(here, _connect(here, port, timeout))
    listener = listen(None if taken else here.address, 0 if taken else here.port or 0)
    port = int(listener.getsockname()[1])
    if taken:
        _tell_port(here, timeout, port)
    hub = Hub(listener, here.world, token(), timeout)
    thread = threading.Thread(target=hub.run, daemon=True, name="hub")
    thread.start()
    return Crew(here, socket.create_connection((LOOPBACK, port)), thread)


def listen(address: str | None, port: int) -> socket.socket:
    """A listening socket at the port of this machine; 0 finds a free one."""
    if not 0 <= port < 1 << 16:
        raise UserError(f"cannot listen at port {port} for the other ranks: set MASTER_PORT between 1024 and 65535")
    try:
        if address in (LOOPBACK, "localhost"):
            return socket.create_server((LOOPBACK, port))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot listen at port {port} for the other ranks: {why}; set another MASTER_PORT") from error


def _connect(here: Launch, port: int, timeout: float) -> socket.socket:
    """A connection to rank 0's hub, which may not be up yet."""
    end, address = time.monotonic() + timeout, here.address or LOOPBACK
    speak_at = time.monotonic() + SILENCE
    while True:
        try:
            connection = socket.create_connection((address, port), timeout=max(1.0, end - time.monotonic()))
            connection.settimeout(None)
            return connection
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError) and (address, port) == (LOOPBACK, here.port)
            if refused and os.environ.get(OWN):
                os._exit(1)  # the command that started this rank listened before it did so: it has been killed
            if time.monotonic() > end:
                why = f"waited {timeout:.0f} s for rank 0 at {address}:{port} ({error.strerror or error})"
                raise UserError(f"rank {here.rank} {why}; check MASTER_ADDR and MASTER_PORT") from error
        if time.monotonic() > speak_at:
            speak_at = float("inf")
            waits = f"rank {here.rank} waits for rank 0 at {address}:{port}, for {timeout:.0f} s at most"
            print(waits, file=sys.stderr, flush=True)
        time.sleep(0.1)


def _talking() -> bool:
    """Has this process a process group already, of an earlier run in it?"""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _tell_port(here: Launch, timeout: float, port: int | None) -> int:
    """The port at which rank 0's hub listens, from rank 0 to the others by what torch has for it."""
    import torch.distributed as dist

    if _talking():
        box = [port]
        dist.broadcast_object_list(box, src=0)
        return box[0] or 0
    store = dist.TCPStore(here.address or LOOPBACK, here.port or 0, is_master=False, timeout=timedelta(seconds=timeout))
    key = f"ssl_lightning/hub/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if port is not None:
        store.set(key, str(port))
    return int(store.get(key))
