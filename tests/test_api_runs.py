"""Real, tiny runs through the Python entry: the bytes of the command line's, in a process that has been used before."""

import csv
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_lightning as sl
from ssl_lightning.modalities.image.sources.shapes import Shapes
from tests.equal_runs import assert_equal_runs

ROOT = Path(__file__).parents[1]
SMALL = ["data.size=192", "data.test_size=64", "backbone.width=8", "optimizer=sgd"]
TINY: dict[str, Any] = {"method": "byol", "epochs": 1, "batch_size": 32, "progress": False}
LINE = ["method=byol", "trainer.max_epochs=1", "data.batch_size=32", *SMALL]

pytestmark = pytest.mark.long  # processes of the command line beside calls


def command(folder: Path, *words: str) -> None:
    """The command line, in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "ssl_lightning", *words]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the command line that differ in their seed, and an evaluation of one."""
    folder = tmp_path_factory.mktemp("lines")
    for seed in (0, 1):
        command(folder, *LINE, f"seed={seed}", f"name=s{seed}")
    command(folder, "stage=knn", "ckpt=runs/s0")
    return folder


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by calls from one process, one of them in a thread, in a process with settings of its own."""
    folder = tmp_path_factory.mktemp("calls")
    dtype, before = torch.get_default_dtype(), Path.cwd()
    os.chdir(folder)
    torch.set_default_dtype(torch.float64)
    torch.rand(3)
    try:
        run = sl.pretrain("shapes", seed=0, name="s0", overrides=SMALL, **TINY)
        other = threading.Thread(target=lambda: sl.pretrain("shapes", seed=1, name="s1", overrides=SMALL, **TINY))
        other.start()
        other.join()
        sl.evaluate(run, progress=False)
    finally:
        torch.set_default_dtype(dtype)
        os.chdir(before)
    return folder


@pytest.mark.parametrize("name", ["s0", "s1"])
def test_a_call_gives_the_bytes_of_the_command_line(name: str, lines: Path, calls: Path) -> None:
    one, two = lines / "runs" / name, calls / "runs" / name
    assert_equal_runs(one, two)
    assert (one / "backbone.safetensors").read_bytes() == (two / "backbone.safetensors").read_bytes()
    other = calls / "runs" / {"s0": "s1", "s1": "s0"}[name]
    assert (one / "backbone.safetensors").read_bytes() != (other / "backbone.safetensors").read_bytes()


def test_a_command_finds_the_run_of_a_call_finished(calls: Path, lines: Path) -> None:
    before = (calls / "runs" / "s1" / "results.json").stat().st_mtime_ns
    command(calls, *LINE, "seed=1", "name=s1")
    assert (calls / "runs" / "s1" / "results.json").stat().st_mtime_ns == before


def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stops = ["+callbacks.stop._target_=tests.own_stages.StopOnce"]
    given: dict[str, Any] = {"seed": 0, "overrides": [*SMALL, *stops], "trusted": ["tests"], **TINY}
    whole = sl.pretrain("shapes", name="whole", **given)
    Path("stop").touch()
    with pytest.raises(
        KeyboardInterrupt, match=r"its state is in runs/s0/checkpoints/last\.ckpt\. Make the same call again"
    ):
        sl.pretrain("shapes", name="s0", **given)
    stopped = sl.load_run("runs/s0")
    assert (stopped.finished, stopped.results) == (False, {})
    assert "not finished" in repr(stopped)
    assert "not finished" in stopped._repr_html_()
    on = sl.pretrain("shapes", name="s0", **given)
    assert_equal_runs(on.path, whole.path)
    first = calls / "runs" / "s0" / "backbone.safetensors"
    assert (on.path / "backbone.safetensors").read_bytes() == first.read_bytes()  # nor does the callback change it


def test_what_a_run_tells(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(calls)
    run = sl.load_run("runs/s0")
    assert run.results["method"] == "byol"
    assert run.config["choices"]["data"] == "shapes"
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(run.backbone(x), sl.load_backbone("runs/s0")(x))
    assert run.backbone is run.backbone
    with open("runs/s0/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    steps, loss = run.curve("train/loss")
    assert [float(row["train/loss"]) for row in rows if row["train/loss"]] == loss.tolist()
    assert [float(row["step"]) for row in rows if row["train/loss"]] == steps.tolist()
    assert run.curve("val/knn_top1", "epoch")[1].tolist() == [float(rows[-1]["val/knn_top1"])]
    assert {len(column) for column in run.metrics.values()} == {len(rows)}
    with pytest.raises(sl.UserError, match=r"no metric .loss.\. Did you mean .train/loss."):
        run.curve("loss")
    knn = sl.load_run("runs/s0/knn-shapes")
    assert knn.results["knn_top1"] == run.results["knn_top1"]
    assert torch.equal(knn.backbone(x), run.backbone(x))  # the network that was evaluated
    page = run._repr_html_()
    assert f"{100 * run.results['knn_top1']:.1f} %" in page
    assert "raw pixels" in page
    assert "data:image/png;base64," in page


def test_features_of_the_run_and_of_a_folder(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(calls)
    found = sl.embed("runs/s0", progress=False)
    assert found.features.shape == (256, sl.load_run("runs/s0").backbone.out_dim)
    assert found.features.dtype == np.float32
    assert found.split.tolist() == ["train"] * 192 + ["test"] * 64
    normal = {key: sl.load_run("runs/s0").config["data"][key] for key in ("mean", "std")}
    data = Shapes(size=192, test_size=64, batch_size=32, **normal)
    data.setup("test")
    assert found.labels[192:].tolist() == data.test_set.labels.tolist()
    assert list(found.classes) == list(data.classes)
    batch = next(iter(data.eval_loader("test")))
    with torch.no_grad():
        direct = sl.load_backbone("runs/s0")(batch.views[0])
    np.testing.assert_allclose(found.features[192 : 192 + len(direct)], direct.numpy(), atol=1e-5)
    assert found.run.results["stage"] == "embed"
    assert "features (256, " in repr(found)

    random = np.random.default_rng(0)
    for folder in ("my photos", "other"):
        Path(folder).mkdir()
        for i in range(20):
            picture = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(picture).save(f"{folder}/{i:02d}.png")
    one, two = (sl.embed("runs/s0", folder, progress=False) for folder in ("my photos", "other"))
    assert one.paths is not None
    assert sorted(one.paths) == [str(calls / "my photos" / f"{i:02d}.png") for i in range(20)]
    assert set(one.labels.tolist()) == {-1}
    assert one.files[0].parent == calls / "runs" / "s0" / "embed-my-photos"
    assert not np.array_equal(one.features, two.features)
    with pytest.raises(sl.UserError, match="was made with other settings"):
        sl.embed("runs/s0", "my photos", name="s0/embed-other", progress=False)


def test_fine_tuning(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(calls)
    run = sl.finetune("runs/s0", epochs=1, labels_per_class=4, overrides=["stage.probe_first=false"], progress=False)
    assert run.path == calls / "runs" / "s0" / "finetune-shapes"
    assert run.results["labels"] == 40
    assert "from scratch" in run._repr_html_()
    x = torch.rand(2, 3, 32, 32)
    before = sl.load_backbone("runs/s0")
    with torch.no_grad():
        assert torch.equal(run.backbone(x), run.model.backbone(x))  # the fine-tuned one
        assert not torch.equal(run.backbone(x), before(x))
        assert run.model(x).shape == (2, 10)


def test_a_script_that_torchrun_has_started(tmp_path: Path) -> None:
    """Two processes, two calls: the second gives the bytes of a command line with two devices."""
    words = [*SMALL, "trainer=cpu", "trainer.devices=2"]
    (tmp_path / "script.py").write_text(
        f"import ssl_lightning as sl\n\nfor seed in (0, 1):\n    run = sl.pretrain('shapes', seed=seed, "
        f"name=f's{{seed}}', overrides={words}, **{TINY})\nprint(run.results['knn_top1'])\n"
    )
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "script.py"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(start, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 1
    line = [word for word in LINE if word not in SMALL]
    command(tmp_path, *line, *words, "seed=1", "name=s1", "runs_dir=lines")
    assert_equal_runs(tmp_path / "lines" / "s1", tmp_path / "runs" / "s1")
