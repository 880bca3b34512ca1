"""Signals that stop a run, outside of training: nothing is swallowed, and a user's own handlers come back."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.core import signals
from ssl_lightning.core.errors import Interrupted
from ssl_lightning.core.signals import NUMBERS, WATCH, status

ROOT = Path(__file__).parents[2]


def tell(number: int) -> None:
    os.kill(os.getpid(), number)


def test_the_exit_status_of_each() -> None:
    assert {signal.Signals(number).name: status(number) for number in NUMBERS} == {
        "SIGINT": 130,
        **dict.fromkeys(("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"), 75),
    }


@pytest.mark.parametrize("number", NUMBERS)
def test_it_is_raised_at_once_and_the_own_handler_comes_back(number: int) -> None:
    def own(*_: Any) -> None: ...

    before = signal.signal(number, own)
    try:
        with pytest.raises(Interrupted) as caught, WATCH, WATCH:
            tell(number)
        assert caught.value.code == status(number)
        assert signal.getsignal(number) is own
        assert (WATCH.told, WATCH.holding) == (0, False)
    finally:
        signal.signal(number, before)


def test_one_ignored_from_the_beginning_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with WATCH:
            tell(signal.SIGHUP)
            assert WATCH.told == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_held_one_is_kept_and_a_second_one_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with WATCH, WATCH.held():
        tell(signal.SIGUSR1)
        tell(signal.SIGTERM)  # within PATIENCE: taken for the same
        assert WATCH.told == signal.SIGUSR1
        monkeypatch.setattr(signals, "PATIENCE", 0.0)
        with pytest.raises(Interrupted) as caught:
            tell(signal.SIGINT)
        assert caught.value.code == 130


def test_in_another_thread_no_handler_is_touched() -> None:
    before, failed = [signal.getsignal(number) for number in NUMBERS], []

    def work() -> None:
        try:
            with WATCH:
                assert [signal.getsignal(number) for number in NUMBERS] == before
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


def test_a_forked_helper_leaves_it_to_its_parent() -> None:
    with WATCH:
        pid = os.fork()
        if pid == 0:
            try:
                tell(signal.SIGUSR1)
                os._exit(0 if WATCH.told == 0 else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_import_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["import os, signal, time", "os.kill(os.getpid(), signal.SIGTERM)", "time.sleep(0.3)", "whole = True"]
    (tmp_path / "told_while_imported.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)

    def work() -> None:
        with WATCH:
            importlib.import_module("told_while_imported")
            time.sleep(5)

    with pytest.raises(Interrupted):
        work()
    assert sys.modules["told_while_imported"].whole


PROGRAM = """
import os, signal, sys, time
import ssl_lightning.__main__ as program
from ssl_lightning.cli import command

def told(asked):
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(30)

command.main = told
if sys.argv[2] == "end":  # a signal that comes when the run has ended by one already
    import atexit
    atexit.register(lambda: (os.kill(os.getpid(), int(sys.argv[1])), time.sleep(5)))
program.entry()
"""


@pytest.mark.parametrize("when", ["begin", "end"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_program_ends_with_the_status(number: int, when: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("sys.argv[1]", f"'{int(number)}'").replace("sys.argv[2]", f"'{when}'")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert done.returncode == status(number), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("interrupted; nothing was lost. Go on with: ")


def slurm(folder: str, path: str) -> None:
    """A training under SLURM's variables, told by SIGUSR1: Lightning would save and requeue within the signal."""
    from tests.callbacks.test_interrupt import Module, fit

    for name, value in {
        "NTASKS": "1",
        "JOB_ID": "1",
        "JOB_NAME": "x",
        "PROCID": "0",
        "LOCALID": "0",
        "NODEID": "0",
    }.items():
        os.environ[f"SLURM_{name}"] = value
    try:
        fit(Module({3: signal.SIGUSR1}), Path(folder))
        code = 0
    except Interrupted as stop:
        code = stop.code
    Path(path).write_text(json.dumps([code, sorted(p.name for p in Path(folder).rglob("*.ckpt"))]))


@pytest.mark.slow
def test_lightnings_requeue_under_slurm_is_not_used(tmp_path: Path) -> None:
    from tests.soak.drive import COPIES

    process = COPIES.Process(target=slurm, args=(str(tmp_path / "run"), str(tmp_path / "end.json")))
    process.start()
    process.join(200)
    process.kill()
    assert json.loads((tmp_path / "end.json").read_text()) == [75, ["last.ckpt"]]
