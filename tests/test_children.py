"""The ranks that Lightning starts: which of their ends stop this process, and how a signal reaches all of them."""

import os
import signal
import subprocess
import time
from typing import Any

import pytest
from lightning import Trainer

from ssl_lightning import children


class Ended(Exception):
    """Stands in for the end of this process."""


def shell(script: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sh", "-c", script])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(children, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(children, "GRACE", 0.3)
    monkeypatch.setattr(children, "SHORT_GRACE", 0.1)
    monkeypatch.setattr(children.os, "_exit", end)
    monkeypatch.setattr(children, "dead", lambda rank, code, _: end(1000 * rank + code))


@pytest.mark.parametrize(
    ("scripts", "status"),
    [
        (["exit 75", "sleep 100"], 75),  # this process waits for ranks that have stopped, and does not know
        (["exit 130", "exit 0"], 130),
        (["kill -USR1 $$", "sleep 100"], 75),  # told before it could handle a signal
        (["kill -INT $$"], 130),
        (["exit 0", "exit 3"], 2003),
        (["kill -KILL $$", "sleep 100"], 1000 - 9),
    ],
)
def test_ends_that_stop_this_process(scripts: list[str], status: int) -> None:
    processes = [shell(script) for script in scripts]
    with pytest.raises(Ended) as caught:
        children._watch(processes)
    assert caught.value.args == (status,)
    for process in processes:
        process.kill()
        process.wait()


def test_ranks_that_end_well_are_watched_no_longer() -> None:
    children._watch([shell("exit 0"), shell("sleep 0.1")])


def test_a_rank_that_stops_leaves_this_one_time_to_stop_too() -> None:
    start = time.monotonic()
    with pytest.raises(Ended):
        children._watch([shell("exit 75")])
    assert time.monotonic() - start > children.GRACE


def test_a_signal_is_passed_on_and_the_ranks_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    willing = shell("trap 'exit 75' USR1; while :; do sleep 0.05; done")
    stubborn = shell("trap '' USR1; while :; do sleep 0.05; done")
    time.sleep(0.5)
    monkeypatch.setattr(children, "_children", [willing, stubborn])
    children.stop(signal.SIGUSR1)
    assert willing.returncode == 75
    assert stubborn.wait() == -signal.SIGKILL


def test_ranks_that_agreed_are_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    child = shell("sleep 0.1; exit 75")
    monkeypatch.setattr(children, "_children", [child])
    told: list[Any] = []
    monkeypatch.setattr(children.os, "kill", lambda *args: told.append(args))
    monkeypatch.setenv(children.PARENT, str(os.getppid()))
    children.stop(0)
    assert child.returncode == 75
    assert told == []
    children.stop(signal.SIGHUP)
    assert told == [(os.getppid(), signal.SIGHUP)]


def test_lightning_installs_no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(children.PARENT, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    trainer = children.take_over(Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"))
    trainer._signal_connector.register_signal_handlers()
    assert signal.getsignal(signal.SIGTERM) is before
    assert os.environ.pop(children.PARENT) == str(os.getpid())
