"""Starts the processes that trainer.devices asks for, when no launcher has, and watches them to their end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_lightning.core import crew
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.hub import Hub
from ssl_lightning.core.launch import LOOPBACK, OWN, PORT, number
from ssl_lightning.core.signals import NUMBERS, status_of_process


def this_command() -> list[str]:
    """The command line of this process, to be started again."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name = spec.name.removesuffix(".__main__")
        return [sys.executable, "-m", name, *sys.argv[1:]]
    if not getattr(main, "__file__", None):
        raise UserError("several processes cannot be started from here; run a script or python -m ssl_lightning")
    return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]


def command_of(overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    """This process' command line where these words are its own, else one of `python -m ssl_lightning`."""
    if overrides and all(word in sys.argv for word in overrides):
        with contextlib.suppress(UserError):
            return this_command()
    folder = ["--config-dir", str(config_dir)] if config_dir else []
    return [sys.executable, "-m", "ssl_lightning", *folder, *overrides]


def start(local: int, trainer: Mapping[str, Any], command: Sequence[str] | None = None) -> int:
    """Run `local` processes of the command on this machine, to their end; returns the exit status of all.

    With trainer.num_nodes > 1 the same command is started on each machine, with NODE_RANK, MASTER_ADDR and MASTER_PORT.
    """
    nodes = int(trainer.get("num_nodes") or 1)
    node = number(os.environ, "NODE_RANK", "GROUP_RANK") or 0
    if nodes > 1 and not {"NODE_RANK", "GROUP_RANK"} & set(os.environ):
        raise UserError(
            f"trainer.num_nodes={nodes}: start this command on each machine with NODE_RANK, MASTER_ADDR and MASTER_PORT"
            " set, or all at once with torchrun or srun"
        )
    address = os.environ.get("MASTER_ADDR", LOOPBACK) if nodes > 1 else LOOPBACK
    port = number(os.environ, "MASTER_PORT") or (PORT if nodes > 1 else 0)
    command = list(command or this_command())
    listener = crew.listen(address, port) if node == 0 else None
    port = listener.getsockname()[1] if listener else port
    world, own = local * nodes, secrets.token_hex(8) if nodes == 1 else f"{address}:{port}"
    shared = {
        OWN: own,
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(local),
        "NODE_RANK": str(node),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // local))),
    }
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    children: dict[int, subprocess.Popen[bytes]] = {}
    with _passing_on(children) as told:
        for i in range(local):
            rank = node * local + i
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(i)}
            children[rank] = begin(command, environment)
            for missed in told:  # what came before this child could be told
                children[rank].send_signal(missed)
        if listener is None:
            return _wait(children)
        os.environ[OWN], before = own, os.environ.get(OWN)
        try:
            hub = Hub(listener, world, crew.token(), crew.JOIN_SECONDS, children)
        finally:
            os.environ.pop(OWN) if before is None else os.environ.update({OWN: before})
        return hub.run()


def begin(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start one rank. Ctrl-C is for this process alone, which passes it on: each rank is told once."""
    group: dict[str, Any] = {"process_group": 0}
    if os.name == "nt":
        group = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    process: subprocess.Popen[bytes] = subprocess.Popen(command, env=environment, **group)
    return process


def _wait(children: Mapping[int, subprocess.Popen[bytes]]) -> int:
    """The first exit status that is not 0: the hub is on another machine."""
    codes = [child.wait() for child in children.values()]
    return next((status_of_process(code) or max(code, 1) for code in codes if code), 0)


@contextlib.contextmanager
def _passing_on(children: Mapping[int, subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """What this process is told goes on to all of its children; gives what it has been told so far."""
    told: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        told.append(number)
        for child in children.values():
            if child.poll() is None:
                child.send_signal(number)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's children ignore it, too
                previous[number] = signal.signal(number, pass_on)
    try:
        yield told
    finally:
        for child in children.values():
            if child.poll() is None:
                child.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)
