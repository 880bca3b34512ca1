"""A small soak: chosen blows instead of random ones, among them signals in the last batch of an epoch.

`make soak` does the same at random, 30 kills for each family.
"""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.soak.blow import Blow
from tests.soak.drive import FAMILIES, ON_WEIGHTS, Family

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
USR1, USR2, HUP = signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
FEW: dict[str, list[Blow | None]] = {
    "joint, one process": [Blow(TERM, "last"), Blow(USR1, "last"), Blow(KILL, "replace", 2)],
    "teacher, two processes": [Blow(USR1, "last", ranks=(1,))],
}
MORE: dict[str, list[Blow | None]] = {
    "teacher, one process": [Blow(HUP, "last"), Blow(KILL, "batch", 4), Blow(INT, "validation")],
    "masked, one process": [Blow(USR2, "batch", 2), Blow(KILL, "fsync", 3), Blow(TERM, "between")],
    "joint, two processes": [Blow(HUP, "batch", 3), Blow(KILL, "last", ranks=(0, 1)), Blow(TERM, "last")],
    "masked, two processes": [Blow(INT, "last", ranks=(1,)), Blow(KILL, "batch", 3, ranks=(1,))],
    "fine-tuning": [Blow(USR1, "last"), Blow(TERM, "last", 2), Blow(KILL, "between", 1), Blow(HUP, "start")],
    "augmented linear": [Blow(TERM, "batch", 3), Blow(USR2, "last"), Blow(KILL, "between", 2)],
    "from weights": [Blow(KILL, "batch", 3), Blow(TERM, "last")],
    "made longer by stretch": [None, Blow(KILL, "batch", 3), Blow(TERM, "last")],
    "made longer by hold": [Blow(KILL, "batch", 4), None, Blow(USR1, "batch", 2), Blow(KILL, "replace", 2)],
    "made longer by rewarm": [None, Blow(TERM, "start"), Blow(KILL, "batch", 5), Blow(HUP, "last")],
}


def check(name: str, blows: Sequence[Blow | None], folder: Path) -> None:
    ckpt = Family("joint, one process", folder / "ckpt").whole if name in ON_WEIGHTS else None
    family = Family(name, folder / "runs", ckpt)
    family.one_run("cut", blows)
    assert family.tally.wrong == []
    assert family.tally.kills == len([blow for blow in blows if blow is not None])


def test_every_family_is_here() -> None:
    assert {*FEW, *MORE} == {*FAMILIES}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FEW)
def test_a_run_that_is_stopped_ends_as_one_left_in_peace(name: str, tmp_path: Path) -> None:
    check(name, FEW[name], tmp_path)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MORE)
def test_so_does_every_family(name: str, tmp_path: Path) -> None:
    check(name, MORE[name], tmp_path)
