"""One run from Python: what a command line does, in this process, which is left as it was found."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ssl_lightning.cli import arguments, command
from ssl_lightning.cli import run as build
from ssl_lightning.cli import words as words_of_text
from ssl_lightning.cli.compose import Config
from ssl_lightning.cli.untouched import hydra_kept, untouched
from ssl_lightning.config import flows, signatures, slots
from ssl_lightning.core import launch, missing, plain_yaml, secrets
from ssl_lightning.core.errors import Interrupted, UserError, plain
from ssl_lightning.core.quiet import quiet
from ssl_lightning.core.signals import WATCH

AGAIN = "Make the same call again to continue"
_at_work = threading.Lock()  # random states, warnings and signal handlers are the whole process'


def perform(words: Sequence[str], config_dir: Path | str | None = None, progress: bool = True) -> Path:
    """Do what a command line of these words does; returns the run's folder, absolute.

    Raises UserError for what ends a command line with one line, and KeyboardInterrupt after a signal, when the state of
    a training has been saved.
    """
    asked = _asked(words, config_dir)
    if asked.config_dir is not None or any(word.startswith("trusted_packages=") for word in asked.overrides):
        _read_anew()
    with _alone(), contextlib.ExitStack() as around:
        if not progress:
            around.enter_context(quiet())
        try:
            return _performed(asked)
        except UserError as error:
            secrets.mask_words(asked.overrides)  # what is given under a secret's name is known now
            error.args = (plain(secrets.hide(str(error))),)
            raise
        except ModuleNotFoundError as error:
            line = missing.line(error)
            if line is None:
                raise
            raise UserError(line) from error


def _performed(asked: arguments.Arguments) -> Path:
    config: Config | None = None
    number, why = 0, "interrupted; nothing was lost"
    try:
        with WATCH:
            try:
                with hydra_kept():
                    place, config = command.begun(launch.here(), asked)
                _one_process(place, config.values["trainer"])
                path = Path.cwd() / config.path
                with untouched():
                    build.run(config, tables=False)
                return path
            except BaseException as error:
                if not WATCH.stopped(error):
                    raise
                number = WATCH.told or signal.SIGINT
                if config is not None:
                    why = build.interrupted(config, error, AGAIN)[1]
                raise Interrupted(0) from error
    except Interrupted:
        pass
    _stop(number, why)


def _asked(words: Sequence[str], config_dir: Path | str | None) -> arguments.Arguments:
    given = ["--config-dir", str(config_dir)] if config_dir is not None else []
    asked = arguments.parse([*given, *words])
    if asked.multirun:
        raise UserError("a sweep is for the command line: python -m ssl_lightning -m ...; here, call in a loop")
    if asked.help or asked.version or asked.cfg:
        raise UserError(
            "overrides are strings such as 'optimizer.base_lr=0.1'; --help, --version and --cfg do not work here"
        )
    return asked


def _read_anew() -> None:
    """Forget what was read of sources and yamls: a user's own may have changed, or come, since the last call."""
    for module in (signatures, slots, flows, words_of_text, plain_yaml):
        for member in vars(module).values():
            if hasattr(member, "cache_clear"):
                member.cache_clear()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    if not _at_work.acquire(blocking=False):
        raise UserError("this process is already busy with a run; wait until it ends, or start a second process")
    try:
        yield
    finally:
        _at_work.release()


def _one_process(place: launch.Launch, trainer: Mapping[str, Any]) -> None:
    """Raise a UserError where several processes are asked for, and nothing has started them."""
    if place.kind:
        return
    count = launch.count(trainer.get("devices", 1))
    count = launch.wanted(trainer) if count is None else count
    nodes = int(trainer.get("num_nodes") or 1)
    if count * nodes > 1:
        start = f"torchrun --nproc-per-node={count}" + (f" --nnodes={nodes}" if nodes > 1 else "")
        raise UserError(
            f"trainer.devices={trainer.get('devices')} means {count * nodes} processes, and a call from Python is one: "
            f"start your script with {start}, or use the command line"
        )


def _stop(number: int, why: str) -> NoReturn:
    """Hand a signal on, now that nothing is lost: to the handler that was there before, whose default may end all."""
    if number != signal.SIGINT and threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(number)
        if handler == signal.SIG_DFL:
            print(why, file=sys.stderr)
        if handler not in (signal.SIG_IGN, None):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os.kill(os.getpid(), number)  # Python runs a handler before the next line
    raise KeyboardInterrupt(why)
