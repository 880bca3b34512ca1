"""Data workers that are killed, fail or hang: one line, soon, and nothing of the run is lost."""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.__main__ import main
from ssl_lightning.core.errors import UserError
from ssl_lightning.data import workers
from tests.equal_runs import differences
from tests.soak.drive import COPIES

pytestmark = pytest.mark.long

CONF = Path(__file__).parents[1] / "conf_standin"
TIMEOUT = (60, 4)  # of a worker that must answer, on a busy machine; of one that will not
ENDS = {  # how a worker ends: (exit status of the run, what its last line says)
    "killed": (2, "error: a data worker (process {pid}) was killed (signal 9), often for lack of memory: set data.num"),
    "shm": (2, "error: a data worker ran out of shared memory (/dev/shm): give it more room"),
    "SIGBUS": (2, "error: a data worker ran out of shared memory (/dev/shm): give it more room"),
    "exit": (2, "error: a data worker (process {pid}) ended by itself"),
    "hung": (2, "error: no data worker has answered for 4 seconds"),
    "mistake": (2, "error: data.root=x is no folder"),
    "bug": (1, "KeyError: 'the image is odd'"),
}


def words(folder: Path, name: str, how: str, split: str = "train") -> list[str]:
    start = [
        "--config-dir",
        str(CONF),
        "trusted_packages=[tests]",
        "data=failing",
        "method=simclr",
        "data.engine=worker",
    ]
    heads = ["backbone.width=8", "method.projector.hidden_dim=16", "method.projector.out_dim=8", "stage.judge=false"]
    often = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "callbacks.checkpoint.every_n_steps=1"]
    mine = [
        f"data.how={how}",
        f"data.split={split}",
        f"data.mark={folder / 'mark'}",
        f"data.worker_timeout={4 if how == 'hung' else 60}",
    ]
    return [*start, *heads, *often, *mine, f"name={name}", f"runs_dir={folder / how}"]


def in_turn(folder: Path, file: Path) -> None:
    """Each way to fail in one process; then what was begun is led to its end, beside a run that never failed."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a program of its own
    ended: dict[str, Any] = {}
    (folder / "mark").touch()
    for how, split in [*((how, "train") for how in ENDS), ("killed", "test")]:
        said, start = io.StringIO(), time.monotonic()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main(words(folder, f"cut-{split}", how, split))
            except Exception:
                code = 1
                traceback.print_exc()
        ended[f"{how} {split}"] = [code, said.getvalue(), time.monotonic() - start]
    (folder / "mark").unlink()
    for name in ("cut-train", "whole"):
        ended[name] = main(words(folder, name, "killed"))
    file.write_text(json.dumps(ended))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("workers")
    process = COPIES.Process(target=in_turn, args=(folder, folder / "ended.json"))
    process.start()
    process.join(600)  # an idle machine takes a tenth
    alive = process.is_alive()  # workers that outlive a run would keep it from ending
    process.kill()
    assert not alive
    return json.loads((folder / "ended.json").read_text()), folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("how", "split"), [*((how, "train") for how in ENDS), ("killed", "test")])
def test_a_failing_worker_ends_the_run_in_one_line(how: str, split: str, ended: tuple[dict[str, Any], Path]) -> None:
    wanted, line = ENDS[how]
    code, said, seconds = ended[0][f"{how} {split}"]
    assert code == wanted, said
    last = said.strip().splitlines()[-1]
    before, _, after = line.partition("{pid}")
    assert last.startswith(before)
    assert after in last
    if code == 2:
        assert "Traceback" not in said
    else:
        first = next(line for line in said.splitlines() if "KeyError" in line)
        assert first.startswith("data worker ")
        assert said.index(first) < said.index("Traceback")
    assert seconds < 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_whose_worker_was_killed_goes_on_exactly(ended: tuple[dict[str, Any], Path]) -> None:
    codes, folder = ended
    assert codes["cut-train"] == codes["whole"] == 0
    assert differences(folder / "killed" / "whole", folder / "killed" / "cut-train") == []


def signalled(file: Path) -> None:
    """A worker that gets every signal of a group, and its batches all the same."""
    from torch.utils.data import DataLoader

    class Rows(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, row: int) -> int:
            time.sleep(0.01)
            return os.getpid()

    multiprocessing.set_start_method("fork", force=True)
    loader: DataLoader[int] = DataLoader(Rows(), batch_size=None, num_workers=1, worker_init_fn=workers.begin)
    pids = []
    for pid in loader:
        pids.append(int(pid))
        if len(pids) == 1:
            for number in workers.NUMBERS:
                os.kill(pids[0], number)
    file.write_text(json.dumps(pids))


def test_a_signal_to_the_whole_group_leaves_workers_to_their_parent(tmp_path: Path) -> None:
    process = COPIES.Process(target=signalled, args=(tmp_path / "pids",))
    process.start()
    process.join(60)
    process.kill()
    pids = json.loads((tmp_path / "pids").read_text())
    assert len(pids) == 40
    assert len(set(pids)) == 1


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("DataLoader worker (pid(s) 3, 4) exited unexpectedly", "(processes 3, 4) ended by themselves"),
        ("Too many open files. Communication with the workers is no longer possible: DataLoader", "ulimit -n"),
        ("Caught MemoryError in DataLoader worker process 1.\nMemoryError", "run out of memory"),
        (
            "Caught OSError in DataLoader worker process 1.\nOSError: [Errno 12] Cannot allocate memory",
            "run out of memory",
        ),
        ("unable to open shared memory object </torch_1_2> in read-write mode: No space left", "/dev/shm"),
    ],
)
def test_what_torch_says_of_workers(said: str, line: str) -> None:
    assert line in str(workers.explain(RuntimeError(said)))


@pytest.mark.parametrize("said", ["CUDA out of memory", "Too many open files", "worker", "shape mismatch"])
def test_other_errors_are_not_blamed_on_workers(said: str) -> None:
    assert workers.explain(RuntimeError(said)) is None
    assert workers.named(RuntimeError(said)) is None


def test_a_mistake_found_in_a_worker_stays_one_line() -> None:
    said = "Caught UserError in DataLoader worker process 0.\nOriginal Traceback ...:\n  raise\nx.UserError: give a=1"
    found = workers.explain(UserError(said))
    assert str(found) == "give a=1"
    assert signal.SIGTERM in workers.NUMBERS
