"""The entry: `python -m ssl_lightning`. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (whoever starts it with another Python is told so)
    told = "error: Python 3.11 or newer is needed, and this is %d.%d; run make setup, then .venv/bin/python"
    sys.stderr.write(told % sys.version_info[:2] + "\n")
    sys.exit(2)

from typing import NoReturn

from ssl_lightning.cli import arguments
from ssl_lightning.core import missing
from ssl_lightning.core.errors import Interrupted, UserError, plain
from ssl_lightning.core.signals import CTRL_C, WATCH, announce


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns its exit status.

    0: done; 1: a job of a sweep failed; 2: a user's mistake; 75: stopped by SIGTERM, SIGUSR1, SIGUSR2 or SIGHUP;
    130: stopped by Ctrl-C. After 75 and 130 the same command goes on.
    """
    try:
        with WATCH:
            return _main(argv)
    except UserError as error:
        from ssl_lightning.core import secrets

        secrets.mask_words(sys.argv[1:] if argv is None else argv)  # what is typed under a secret's name is known now
        print(f"error: {plain(secrets.hide(str(error)))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        line = missing.line(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as stop:  # before there was a run, or after it
        from ssl_lightning.core.launch import is_main_process

        if is_main_process():
            announce("nothing was lost")
        return stop.code if isinstance(stop, Interrupted) else CTRL_C


def _main(argv: list[str] | None) -> int:
    asked = arguments.parse(sys.argv[1:] if argv is None else argv)
    if asked.help:
        from ssl_lightning.cli import help

        print(help.text((asked.config_dir,) if asked.config_dir else ()))
        return 0
    if asked.version:
        import ssl_lightning

        print(f"ssl_lightning {ssl_lightning.__version__}")
        return 0
    if asked.multirun and not asked.cfg:
        from ssl_lightning.cli import sweep
        from ssl_lightning.core import launch

        place = launch.here()
        if place.kind and place.world != 1:
            kind = f"a sweep starts its jobs by itself, and {place.kind} has started it several times"
            raise UserError(f"{kind}; run it once, with trainer.devices=2 for two processes in each job")
        return sweep.main(asked)
    from ssl_lightning.cli import command

    return command.main(asked)


def entry() -> NoReturn:
    """The program: signals are watched until the process has ended."""
    WATCH.program()
    code = main()
    WATCH.leave(code)
    sys.exit(code)


if __name__ == "__main__":
    entry()
