"""Starts command lines as launchers would, in real processes that need not import torch anew: they are forked."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ssl_lightning.__main__ import main
from ssl_lightning.cli import ranks
from tests.gloo import free_port

TINY = [
    *("data.size=96", "data.test_size=32", "data.batch_size=16", "backbone.width=8", "trainer.max_epochs=2"),
    *("method.projector.hidden_dim=16", "method.projector.out_dim=8", "stage.judge=false"),
    *("trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "callbacks.view_mosaic=null"),
]
LAUNCHERS = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_",
    "NODE_RANK",
    "GROUP_",
    "MASTER_",
    "SLURM_",
    "OMPI_",
    "PMI",
    "TORCHELASTIC_",
)
COPIES = multiprocessing.get_context("forkserver")
COPIES.set_forkserver_preload(["tests.launching", "ssl_lightning.cli.run", "ssl_lightning.stages.pretrain"])
Before = Callable[[], None]


def note(folder: Path) -> None:
    """Leave this process' number, so that a test can see whether it has ended."""
    with open(folder / "pids.txt", "a") as file:
        file.write(f"{os.getpid()}\n")


def alive(folder: Path) -> list[int]:
    """Which of the processes whose screen is a file of this folder still run, a second later at most."""
    numbers = [int(line) for line in (folder / "pids.txt").read_text().split()]
    for _ in range(20):
        left = [number for number in numbers if Path(f"/proc/{number}").exists() and not _ended(number)]
        if not left:
            return []
        time.sleep(0.05)
    return left


def _ended(number: int) -> bool:
    """A process that has ended, but was not asked for its exit status yet, still has a place in the table."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Fork:
    """A copy of this process with another environment, in place of a Popen: what starts a rank in the tests."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path, before: Before | None
    ) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            os.closerange(3, 100)  # a started command would not inherit them either
            os.environ.update(environment)
            code = 1
            try:
                note(folder)
                if before is not None:
                    before()
                code = main(list(words))
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _process(words: list[str], environment: dict[str, str], log: Path, before: Before | None) -> None:
    for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
        del os.environ[name]
    os.environ.update({"XDG_CACHE_HOME": str(log.parent / "cache"), "OMP_NUM_THREADS": "1", **environment})
    torch.set_num_threads(1)
    screen = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(screen, 1)
    os.dup2(screen, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = ["ssl_lightning", *words]
    ranks.command_of = lambda overrides, config_dir: words  # type: ignore[assignment]
    ranks.begin = lambda command, env: Fork(command, env, log.parent, before)  # type: ignore[assignment,return-value]
    note(log.parent)
    if before is not None and environment:
        before()
    code = main(words)
    sys.stdout.flush()
    sys.exit(code)


def start(words: Sequence[str], log: Path, before: Before | None = None, **environment: str) -> Any:
    """Begin `python -m ssl_lightning words` in a process of its own, its screen in a file.

    `before` is called in each rank before anything else.
    """
    process = COPIES.Process(target=_process, args=(list(words), environment, log, before))
    process.start()
    return process


def warm() -> None:
    """Let the process that all others are copied from import what it imports."""
    process = COPIES.Process(target=int)
    process.start()
    process.join()


def end(*processes: Any, seconds: float = 90) -> list[int]:
    """The exit codes, once all have ended."""
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def slurm(rank: int, world: int, port: int) -> dict[str, str]:
    """What srun sets, for tasks on one node."""
    return {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(world),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_STEP_TASKS_PER_NODE": str(world),
        "SLURM_NODELIST": "localhost",
        "MASTER_PORT": str(port),
    }


def open_mpi(rank: int, world: int, port: int) -> dict[str, str]:
    """What Open MPI's mpirun sets."""
    names = {"RANK": rank, "SIZE": world, "LOCAL_RANK": rank, "LOCAL_SIZE": world}
    return {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in names.items()} | {"MASTER_PORT": str(port)}


def by_hand(rank: int, world: int, port: int) -> dict[str, str]:
    """The variables that torchrun made common."""
    names = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in names.items()}


def start_all(
    launcher: Callable[[int, int, int], dict[str, str]],
    words: Sequence[str],
    log: Path,
    before: Sequence[Before | None] = (None, None),
) -> list[Any]:
    """Begin one process per item of `before`, as this launcher would."""
    port, world = free_port(), len(before)
    return [start(words, log, before[rank], **launcher(rank, world, port)) for rank in range(world)]
