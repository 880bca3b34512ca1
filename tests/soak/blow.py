"""One blow at a run, and the process that takes it: a signal at a chosen moment, raised from inside."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

from ssl_lightning.__main__ import main
from ssl_lightning.callbacks.reseed import Reseed
from ssl_lightning.core.signals import WATCH

# start: as `fit` begins; batch: in the n-th batch of this process; last: in the n-th batch that ends an epoch;
# validation: as the n-th one begins; fsync: in the n-th write to disk; replace: between a file's write and its rename;
# renamed: right after; between: when the n-th training has ended; time: any moment.
MOMENTS = ("start", "batch", "last", "validation", "fsync", "replace", "renamed", "between", "time")
TRAINING = ("batch", "last", "validation")  # moments at which all ranks must save, at the same step


@dataclass(frozen=True)
class Blow:
    """A signal at the `count`-th `moment` of a process, `delay` seconds later, at these ranks."""

    number: int
    moment: str
    count: int = 1
    delay: float = 0.0
    ranks: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        return f"{name} at {self.moment} {self.count} + {self.delay:.2f} s, ranks {self.ranks}"


def process(argv: list[str], environment: dict[str, str], blow: Blow | None, log: Path, mark: Path) -> None:
    """Run a command line in this (forked) process; `mark` is made when the blow falls."""
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # as in a program of its own
    torch.set_num_threads(1)  # torch, imported by then, does not look into the environment again
    with open(log, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            if blow is not None:
                arm(blow, mark)
            WATCH.program()  # as `__main__.entry` does
            code = main(argv)
            WATCH.leave(code)
            sys.exit(code)


def arm(blow: Blow, mark: Path) -> None:
    """Let the blow fall at its moment."""
    left = [blow.count]

    def strike() -> None:
        mark.touch()
        os.kill(os.getpid(), blow.number)

    def reached() -> None:
        left[0] -= 1
        if left[0] == 0:
            if blow.delay:
                threading.Timer(blow.delay, strike).start()
            else:
                strike()

    if blow.moment == "time":
        timer = threading.Timer(blow.delay, strike)
        timer.daemon = True
        timer.start()
        return
    place, name, first, only = {
        "start": (Trainer, "fit", True, anywhere),
        "between": (Trainer, "fit", False, anywhere),
        "batch": (Reseed, "on_train_batch_start", True, anywhere),
        "last": (Reseed, "on_train_batch_start", True, ends_epoch),
        "validation": (_EvaluationLoop, "run", True, anywhere),
        "fsync": (os, "fsync", True, anywhere),
        "replace": (os, "replace", True, anywhere),
        "renamed": (os, "replace", False, anywhere),
    }[blow.moment]
    wrap(place, name, reached, first, only)


def wrap(place: Any, name: str, reached: Callable[[], None], first: bool, only: Callable[..., bool]) -> None:
    """Call `reached` before or after each call of `place.name` of the wanted kind."""
    inner = getattr(place, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        if first and only(*args):
            reached()
        result = inner(*args, **kwargs)
        if not first and only(*args):
            reached()
        return result

    setattr(place, name, outer)


def anywhere(*_: Any) -> bool:
    return True


def ends_epoch(callback: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> bool:
    return bool(batch_idx + 1 == trainer.num_training_batches)
