"""The meeting of ranks: who is waited for is said, however many connections there are, and by one process alone."""

import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from ssl_lightning.cli.trainers import TrainerFactory
from ssl_lightning.core import crew, hub, signals
from ssl_lightning.core.launch import LOOPBACK, Launch


def test_the_ranks_that_are_waited_for_are_named_long_before_the_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "SILENCE", 0.05)
    served = hub.Hub(socket.create_server((LOOPBACK, 0)), 3, "t", 0.5)
    assert served.run() == 1
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "waiting for rank 0, 1, 2 of 3, for 0 s at most"
    assert "were all processes started" in said[1]
    assert len(said) == 2


def test_a_rank_that_finds_no_rank_0_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crew, "SILENCE", 0.05)
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(crew.UserError, match="check MASTER_ADDR"):
        crew._connect(Launch("srun", 3, 4, 3, 4, LOOPBACK, port), port, 0.6)
    assert capsys.readouterr().err == f"rank 3 waits for rank 0 at {LOOPBACK}:{port}, for 1 s at most\n"


def test_many_ranks_are_listed_in_short() -> None:
    assert hub.listed(list(range(1000))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 990 more"


def test_a_hub_serves_descriptors_above_a_thousand() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("this system lets no process open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 1200)), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        listener = socket.create_server((LOOPBACK, 0))
        assert listener.fileno() > 1024
        served = hub.Hub(listener, 1, "t", 30)
        port, codes = listener.getsockname()[1], []
        thread = threading.Thread(target=lambda: codes.append(served.run()))
        thread.start()
        with socket.create_connection((LOOPBACK, port)) as member:
            member.sendall(b'{"hello": 0, "world": 1, "token": "t"}\n{"bye": true}\n')
            thread.join(20)
            assert codes == [0]
            assert b'"ended": true' in member.recv(1000)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("quiet", [False, True])
def test_one_rank_tells_of_a_signal_in_a_long_import(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    watch, left = signals.Watch(), []
    watch._program, watch.quiet, watch._importing_since = True, quiet, time.monotonic() - 60
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(signals, "tell_again", lambda number: None)
    watch._after_import(signal.SIGTERM, time.monotonic())
    assert left == [75]
    assert ("interrupted" in capfd.readouterr().err) is not quiet


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"devices": 2}, True),
        ({"devices": "2"}, True),
        ({"devices": 1, "num_nodes": 2}, True),
        *(({"devices": one}, False) for one in (0, [], [1], "1", 1, "auto", -1, "1,")),
    ],
)
def test_batch_norm_s_own_batches_are_told_of_several_processes_alone(
    arguments: dict[str, object], said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"sync_batchnorm": True, "accelerator": "cpu", **arguments}
    assert TrainerFactory._sync_batchnorm(asked, say=True) is False
    assert ("own batch" in capsys.readouterr().out) is said
