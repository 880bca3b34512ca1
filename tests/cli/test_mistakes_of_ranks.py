"""A mistake in a run of two processes: both end at once, and the one line that names it is the last on the screen."""

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.callbacks.reseed import Reseed
from ssl_lightning.core.errors import UserError
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.modalities.image.sources.shapes import Shapes
from tests.launching import TINY, alive, end, open_mpi, slurm, start, start_all, warm

pytestmark = pytest.mark.long

NO_DATA = ["trainer.accelerator=cpu", "data.batch_size=16"]
LATE = 45.0  # seconds; two or three on a machine that does nothing else


def me() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "-1")))


def nan_on_rank_1() -> None:
    step = SimCLR.training_step

    def broken(self: SimCLR, batch: Any, batch_idx: int) -> Any:
        found = step(self, batch, batch_idx)
        return {**found, "loss": found["loss"] * (math.nan if me() == 1 else 1.0)}

    SimCLR.training_step = broken  # type: ignore[method-assign]


def no_data_on_rank_1() -> None:
    load = Shapes.load

    def broken(self: Shapes) -> Any:
        if me() == 1:
            raise UserError("the data of this machine is gone; copy it again")
        return load(self)

    Shapes.load = broken  # type: ignore[method-assign]


def mistakes(folder: Path) -> dict[str, Any]:
    """Words, and what the one line says."""
    (folder / "file").write_text("")
    (folder / "few").mkdir()
    (folder / "damaged.ckpt").write_bytes(b"PK\x03\x04 no checkpoint")
    torch.save({"fc.weight": torch.zeros(2, 2)}, folder / "other.ckpt")
    knn = [*TINY[:3], "trainer.accelerator=cpu", "stage=knn"]
    return {
        "a folder that does not exist": ([*NO_DATA, "data=folder", f"data.root={folder}/nowhere"], "nowhere"),
        "a folder without images": ([*NO_DATA, "data=folder", f"data.root={folder}/few"], "few"),
        "no network": (
            [*NO_DATA, "method=moco", "data=cifar10", f"data.root={folder}/file"],
            "cannot be downloaded",
        ),
        "fewer images than a batch": ([*TINY, "data.size=20"], "data.batch_size"),
        "no checkpoint": ([*knn, f"ckpt={folder}/nowhere"], "no checkpoint at"),
        "a damaged checkpoint": ([*knn, f"ckpt={folder}/damaged.ckpt"], "damaged"),
        "another backbone's weights": ([*knn, f"ckpt={folder}/other.ckpt"], "another backbone"),
        "nothing to resume": ([*TINY, "resume=must"], "no checkpoint to resume from"),
        "a place that cannot be written": ([*TINY, f"runs_dir={folder}/file/runs"], "cannot write to"),
        "too few views": ([*TINY, "views=crop"], "view"),
        "patches that do not fit": ([*TINY[:3], "method=mae", "data.image_size=31"], "patch"),
        "a strategy that does not exist": ([*TINY, "trainer.strategy=dpp"], "trainer"),
    }


def check(log: Path, codes: list[int], code: int, words: str) -> None:
    said = log.read_text()
    assert set(codes) == {code}, said
    assert "Traceback" not in said
    assert said.count("error: ") == 1, said
    last = said.rstrip().splitlines()[-1]
    assert last.startswith("error: "), said
    assert words in last
    assert alive(log.parent) == []


NAMES = [
    *("a folder that does not exist", "a folder without images", "no network", "fewer images than a batch"),
    *("no checkpoint", "a damaged checkpoint", "another backbone's weights", "nothing to resume"),
    *("a place that cannot be written", "too few views", "patches that do not fit", "a strategy that does not exist"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_ends_both_processes_with_one_line(name: str, tmp_path: Path) -> None:
    words, said = mistakes(tmp_path)[name]
    place = [] if any(word.startswith("runs_dir=") for word in words) else [f"runs_dir={tmp_path}/runs"]
    warm()
    began = time.monotonic()
    process = start(["name=a", *place, *words, "trainer.devices=2"], tmp_path / "said.txt")
    codes = end(process)
    check(tmp_path / "said.txt", codes, 2, said)
    assert time.monotonic() - began < LATE
    assert list(tmp_path.glob("**/*.lock")) == []


@pytest.mark.parametrize(("before", "said"), [(nan_on_rank_1, "the loss is nan"), (no_data_on_rank_1, "is gone; copy")])
def test_a_mistake_of_one_rank_alone(before: Any, said: str, tmp_path: Path) -> None:
    words = ["name=a", f"runs_dir={tmp_path}/runs", *TINY, "trainer.devices=2"]
    codes = end(start(words, tmp_path / "said.txt", before))
    check(tmp_path / "said.txt", codes, 2, said)


@pytest.mark.parametrize("launcher", [slurm, open_mpi])
def test_under_a_launcher_each_process_ends_so(launcher: Any, tmp_path: Path) -> None:
    words = ["name=a", f"runs_dir={tmp_path}/runs", *NO_DATA, "data=folder", f"data.root={tmp_path}/nowhere"]
    check(tmp_path / "said.txt", end(*start_all(launcher, words, tmp_path / "said.txt")), 2, "nowhere")


def test_what_all_ranks_read_wrong_is_told_by_one(tmp_path: Path) -> None:
    words = ["name=a", f"runs_dir={tmp_path}/runs", *TINY, "data.sise=3"]
    check(tmp_path / "said.txt", end(*start_all(slurm, words, tmp_path / "said.txt")), 2, "there is no 'data.sise'")


def bug_on_rank_1() -> None:
    def broken(self: Reseed, trainer: Any, *args: Any) -> None:
        if me() == 1 and trainer.global_step == 1:
            raise KeyError("a bug")

    Reseed.on_train_batch_start = broken  # type: ignore[method-assign]


@pytest.mark.parametrize("launched", [False, True])
def test_an_unexpected_exception_is_shown_once_with_its_rank_first(launched: bool, tmp_path: Path) -> None:
    words, log = ["name=a", f"runs_dir={tmp_path}/runs", *TINY], tmp_path / "said.txt"
    if launched:
        codes = end(*start_all(slurm, words, log, [bug_on_rank_1] * 2))
    else:
        codes = end(start([*words, "trainer.devices=2"], log, bug_on_rank_1))
    said = log.read_text()
    assert set(codes) == {1}, said
    assert said.count("Traceback") == 1
    before, _, after = said.partition("Traceback")
    assert before.splitlines()[-1].startswith("rank 1 of 2 (process ")
    assert after.rstrip().endswith("KeyError: 'a bug'")
    assert alive(tmp_path) == []
