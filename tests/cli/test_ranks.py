"""Several processes of one run: what rank 0 decides, a process that dies, one that hangs, one that is told to stop."""

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_lightning.callbacks.reseed import Reseed
from ssl_lightning.cli import ranks
from ssl_lightning.core import hub
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation import features
from ssl_lightning.runs import folder as run_folder
from ssl_lightning.runs import locks
from ssl_lightning.runs.folder import RunFolder
from tests.cli.test_mistakes_of_ranks import me
from tests.launching import TINY, alive, end, slurm, start, start_all, warm

pytestmark = pytest.mark.long

SOON = 30.0  # seconds, of which a machine that does nothing else needs two


def at_step_1(rank: int, act: Any) -> None:
    """Do something in the middle of the training of this rank."""

    def acting(self: Reseed, trainer: Any, *args: Any) -> None:
        if me() == rank and trainer.global_step == 1:
            act()

    Reseed.on_train_batch_start = acting  # type: ignore[method-assign]


def kill_rank_0() -> None:
    at_step_1(0, lambda: os.kill(os.getpid(), signal.SIGKILL))


def kill_rank_1() -> None:
    at_step_1(1, lambda: os.kill(os.getpid(), signal.SIGKILL))


def abort_rank_1() -> None:
    at_step_1(1, os.abort)


def leave_rank_1() -> None:
    at_step_1(1, lambda: os._exit(3))


def hang_rank_1() -> None:
    at_step_1(1, lambda: time.sleep(1000))


def freeze_rank_1() -> None:
    at_step_1(1, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def words(folder: Path, *more: str) -> list[str]:
    return ["name=a", f"runs_dir={folder}/runs", *TINY, *more]


DEATHS = [
    (kill_rank_1, r"error: rank 1 (process ", "was killed by SIGKILL; a machine out of memory does that"),
    (kill_rank_0, r"error: rank 0 (process ", "was killed by SIGKILL; a machine out of memory does that"),
    (abort_rank_1, r"error: rank 1 (process ", "was killed by SIGABRT"),
    (leave_rank_1, r"error: rank 1 (process ", "ended with exit status 3 without a word"),
]


@pytest.mark.parametrize(("before", "start_of", "end_of"), DEATHS, ids=[before.__name__ for before, *_ in DEATHS])
def test_a_dead_rank_ends_the_run(before: Any, start_of: str, end_of: str, tmp_path: Path) -> None:
    log = tmp_path / "said.txt"
    warm()
    began = time.monotonic()
    codes = end(start(words(tmp_path, "trainer.devices=2"), log, before))
    said = log.read_text().rstrip()
    assert codes == [1], said
    last = said.splitlines()[-1]
    assert last.startswith(start_of), said
    assert last.endswith(end_of), said
    assert said.count("error") == 1
    assert "Traceback" not in said
    assert alive(tmp_path) == []
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize(("before", "who"), [(kill_rank_0, 0), (kill_rank_1, 1)])
def test_a_dead_rank_under_a_launcher(before: Any, who: int, tmp_path: Path) -> None:
    log = tmp_path / "said.txt"
    codes = end(*start_all(slurm, words(tmp_path), log, [before] * 2))
    said = log.read_text().rstrip()
    assert codes[who] == -signal.SIGKILL
    assert codes[1 - who] == 1
    assert said.splitlines()[-1].startswith(f"error: rank {who}"), said
    assert "died without a word" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize("before", [hang_rank_1, freeze_rank_1])
def test_a_rank_that_hangs_is_named_after_the_timeout(before: Any, tmp_path: Path) -> None:
    log = tmp_path / "said.txt"
    codes = end(start(words(tmp_path, "trainer.devices=2", "rank_timeout=6"), log, before))
    said = log.read_text().rstrip()
    assert codes == [1], said
    assert said.splitlines()[-1].startswith("error: rank 1 (process "), said
    assert "within rank_timeout" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert alive(tmp_path) == []


def test_the_children_do_not_outlive_the_command(tmp_path: Path) -> None:
    process = start(words(tmp_path, "trainer.devices=2"), tmp_path / "said.txt", hang_rank_1)
    pids = tmp_path / "pids.txt"
    limit = time.monotonic() + SOON
    while not (pids.exists() and len(pids.read_text().split()) == 3) and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(1.0)
    process.kill()
    process.join()
    while alive(tmp_path) and time.monotonic() < limit:
        time.sleep(0.2)
    assert alive(tmp_path) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"MASTER_PORT": "99999"}, "cannot listen at port 99999"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT=x in the environment is no number"),
        ({"NODE_RANK": "x"}, "NODE_RANK=x in the environment is no number"),
    ],
)
def test_a_wrong_variable_is_one_line(wrong: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ({"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"} | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        ranks.start(1, {"num_nodes": 2}, ["no", "such", "command"])


def test_a_signal_while_the_ranks_are_started_reaches_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told when no child is there yet: the handler has nobody to pass it on to."""
    begun: list[Any] = []

    def begin(command: Any, environment: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        begun.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]))
        return begun[-1]

    monkeypatch.setattr(ranks, "begin", begin)
    assert ranks.start(2, {}, ["command"]) == 75
    assert all(child.wait(10) < 0 for child in begun)


def welcomed(listener: socket.socket, rank: int) -> socket.socket:
    found = socket.create_connection(listener.getsockname())
    found.sendall(json.dumps({"hello": rank, "world": 2, "token": "t", "pid": rank, "host": "a"}).encode() + b"\n")
    return found


HELD_UP = [[(0, "meet")], [(0, "meet"), (1, "meet"), (0, "bye")], [(0, "meet"), (0, "bye"), (1, "meet")]]


@pytest.mark.parametrize("said", HELD_UP)
def test_a_rank_that_hangs_where_nothing_is_computed_is_named(
    said: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before the first collective and after the last one: rank 0 waits, rank 1 says nothing more."""
    monkeypatch.setattr(hub, "TO_LEAVE", 0.1)
    listener = socket.create_server(("127.0.0.1", 0))
    served = hub.Hub(listener, 2, "t", 60)
    members = [welcomed(listener, 0), welcomed(listener, 1)]
    for _ in range(3):
        served._serve(0.5)
    for rank, word in said:
        members[rank].sendall(json.dumps({word: 0.5}).encode() + b"\n")
        served._serve(0.5)
    assert served.run() == 1
    assert "error: rank 1 (process 1 on a) did not answer the others within rank_timeout" in capfd.readouterr().err
    for member in members:
        member.close()


# ---- rank 0 decides ------------------------------------------------------------------------------------------------


def late_rank_1() -> None:
    if me() == 1:
        time.sleep(2.0)


def blind_rank_1() -> None:
    """Rank 1 sees a folder in another state than rank 0: any look at it is an error."""
    if me() == 1:
        late_rank_1()

        def no(*args: Any) -> None:
            raise AssertionError("rank 1 looks at the folder")

        RunFolder.open = RunFolder.refusal = no  # type: ignore[method-assign,assignment]
        RunFolder.finished = property(no)  # type: ignore[assignment,method-assign]


def test_only_rank_0_looks_at_the_folder_and_a_late_rank_sees_what_it_saw(tmp_path: Path) -> None:
    log = tmp_path / "said.txt"
    assert end(*start_all(slurm, words(tmp_path), log, [blind_rank_1] * 2)) == [0, 0], log.read_text()
    results = tmp_path / "runs" / "a" / "results.json"
    first = results.read_text()
    # Finished: both say so, and nothing is done again.
    assert end(*start_all(slurm, words(tmp_path), log, [blind_rank_1] * 2)) == [0, 0], log.read_text()
    assert results.read_text() == first
    assert log.read_text().count("is finished; nothing to do") == 1
    # Half done, the results gone: rank 0 resumes, and so does the late one.
    results.unlink()
    assert end(*start_all(slurm, words(tmp_path), log, [blind_rank_1] * 2)) == [0, 0], log.read_text()
    assert log.read_text().count("resuming ") == 1
    assert json.loads(results.read_text())["steps"] == 6
    # Another config: refused, once.
    codes = end(*start_all(slurm, words(tmp_path, "seed=1"), log, [blind_rank_1] * 2))
    assert codes == [2, 2]
    assert log.read_text().count("was made with other settings") == 1
    # From the beginning: the old folder is moved once, before anybody begins.
    codes = end(*start_all(slurm, words(tmp_path, "seed=1", "resume=never"), log, [blind_rank_1] * 2))
    assert codes == [0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a", "a.old-1"]


def count_rows() -> None:
    """Say how many images this process has computed features of."""
    gathered = features._gathered

    def counting(x: Any, labels: Any, indices: Any, device: Any) -> Any:
        print(f"rows {sum(len(part) for part in indices)}", file=sys.stderr)
        return gathered(x, labels, indices, device)

    features._gathered = counting


def test_a_judging_stage_shares_the_work_and_finds_what_one_process_finds(tmp_path: Path) -> None:
    log, one, two = tmp_path / "said.txt", tmp_path / "one.txt", tmp_path / "two.txt"
    assert end(start(words(tmp_path, "trainer.max_epochs=1"), log)) == [0], log.read_text()
    judge = [
        *("data.size=96", "data.test_size=32", "data.batch_size=16"),
        "stage=embed",
        f"ckpt={tmp_path}/runs/a",
        "trainer.accelerator=cpu",
    ]
    codes = end(
        start([*judge, f"runs_dir={tmp_path}/1", "name=k"], one, count_rows, ANY="1"),
        *start_all(slurm, [*judge, f"runs_dir={tmp_path}/2", "name=k"], two, [count_rows] * 2),
    )
    assert codes == [0, 0, 0], two.read_text()
    rows = [[int(n) for n in re.findall(r"rows (\d+)", file.read_text())] for file in (one, two)]
    assert rows == [[96, 32], [48, 48, 16, 16]]
    assert two.read_text().count("run: ") == 1
    for split in ("train", "test"):
        left, right = (np.load(tmp_path / name / "k" / f"features_{split}.npz") for name in ("1", "2"))
        assert (left["indices"] == right["indices"]).all()
        assert (left["labels"] == right["labels"]).all()
        assert (left["features"] == right["features"]).all()  # whole batches are dealt out


def stop_rank_1_early() -> None:
    if me() == 1:
        from ssl_lightning.modalities.image.sources.shapes import Shapes

        Shapes.load = lambda self: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5)  # type: ignore


def test_a_signal_to_one_rank_before_training_stops_all(tmp_path: Path) -> None:
    log = tmp_path / "said.txt"
    codes = end(start(words(tmp_path, "trainer.devices=2"), log, stop_rank_1_early))
    said = log.read_text().rstrip()
    assert codes[0] in (75, 143), said
    assert said.splitlines()[-1].startswith("interrupted; nothing was saved yet"), said
    assert said.count("interrupted") == 1
    assert alive(tmp_path) == []


def stop_rank_1_in_an_import() -> None:
    if me() == 1:
        from ssl_lightning.core.signals import WATCH
        from ssl_lightning.modalities.image.sources.shapes import Shapes

        WATCH._program = True
        folder = Path(tempfile.mkdtemp())
        (folder / "imported_for_long.py").write_text("import os, time\nos.kill(os.getpid(), 10)\ntime.sleep(30)\n")
        sys.path.insert(0, str(folder))
        Shapes.load = lambda self: __import__("imported_for_long")  # type: ignore


def test_a_signal_to_one_rank_in_a_long_import_stops_all(tmp_path: Path) -> None:
    """It cannot be raised there, and that rank has to end: the others are told why."""
    log = tmp_path / "said.txt"
    codes = end(start(words(tmp_path, "trainer.devices=2"), log, stop_rank_1_in_an_import))
    said = log.read_text().rstrip()
    assert codes == [75], said
    assert said.splitlines()[-1].startswith("interrupted; nothing was lost"), said
    assert alive(tmp_path) == []


# ---- file systems without locks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with RunFolder(tmp_path / "a").locked():
        pass
    assert "cannot be locked" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    with RunFolder(tmp_path / "a").locked():
        pass
    assert "cannot be locked" in capsys.readouterr().err


def test_another_error_of_the_lock_is_none_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(run_folder.UserError, match="Input/output error"), RunFolder(tmp_path / "a").locked():
        pass
