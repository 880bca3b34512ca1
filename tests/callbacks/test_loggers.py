"""W&B and TensorBoard in a run: everything lands in the run's folder, offline, and a resumed run keeps its id."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.__main__ import main
from ssl_lightning.callbacks import wandb_logger
from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.step_logger import StepLogger
from ssl_lightning.callbacks.tensorboard_logger import TensorBoardLogger
from ssl_lightning.callbacks.view_mosaic import ViewMosaic
from ssl_lightning.callbacks.wandb_logger import WandbLogger, has_key, place_of, run_id
from ssl_lightning.core.errors import UserError
from ssl_lightning.reports import kept, thumbnails
from tests.callbacks.toy import ToyMethod, fit
from tests.callbacks.wandb_file import records
from tests.stages.tiny_run import a_run


def test_has_key_looks_at_the_environment_and_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_key()
    (tmp_path / "netrc").write_text("machine example.org\n  login user\n  password x\n")
    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert has_key()
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_key()


def test_run_id_is_made_once(tmp_path: Path) -> None:
    first = run_id(tmp_path / "run")
    assert run_id(tmp_path / "run") == first
    assert run_id(tmp_path / "other") != first


@pytest.mark.parametrize("key", [None, "x"])
def test_offline_unless_there_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    settings = WandbLogger(tmp_path, project="p")._wandb_init
    assert settings["mode"] == ("online" if key else "offline")
    assert settings["resume"] == ("allow" if key else None)
    assert settings["config"] == {"seed": 3}
    assert settings["id"] == run_id(tmp_path)
    assert WandbLogger(tmp_path)._wandb_init["id"] == settings["id"]


def test_tensorboard_takes_curves_and_mosaic(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    callbacks = [OnlineKNN(), ViewMosaic(tmp_path), StepLogger(1)]
    fit(ToyMethod(), tmp_path, callbacks, logger=TensorBoardLogger(tmp_path), max_epochs=2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == list(range(10))
    assert [e.step for e in events.Scalars("val/knn_top1")] == [4, 9]
    assert events.Tags()["images"] == ["views"]


def test_group_job_type_and_tags() -> None:
    choices = {"method": "byol", "data": "shapes", "stage": "linear", "task": "classify"}
    on_a_run = place_of({"name": "byol-shapes/linear-shapes", "choices": choices})
    assert on_a_run == {"group": "byol-shapes", "job_type": "linear", "tags": ["byol", "shapes", "linear"]}
    job = place_of({"name": "sweep/data.batch_size=8,seed=1", "choices": {**choices, "task": "regress"}})
    assert job["group"] == "sweep"
    assert job["tags"] == ["byol", "shapes", "linear", "regress", "sweep"]
    assert place_of({}) == {"group": None, "job_type": None, "tags": None}
    assert max(len(tag) for tag in place_of({"choices": {"method": "m" * 300}})["tags"]) == 64


def test_an_evaluation_is_in_the_group_of_the_run_that_it_is_of(tmp_path: Path) -> None:
    run = tmp_path / "byol-shapes"
    run.mkdir()
    (run / "config.yaml").write_text("name: byol-shapes\n")
    choices = {"method": "byol", "data": "shapes", "stage": "knn"}

    def group(name: str, ckpt: Any, **other: str) -> Any:
        return place_of({"name": name, "ckpt": ckpt, "choices": {**choices, **other}})["group"]

    assert group("mine", str(run)) == "byol-shapes"
    assert group("mine", str(run / "checkpoints" / "last.ckpt")) == "byol-shapes"
    assert group("evals/ckpt=a", str(run)) == "evals"  # a sweep is one group
    assert group("mine", str(run), stage="pretrain") == "mine"  # which goes on from those weights
    for other in (None, "timm:resnet18", str(tmp_path / "absent")):
        assert group("mine", other) == "mine"
    (run / "config.yaml").write_text("a: [")
    assert group("mine", str(run)) == "mine"


def test_a_training_in_a_subfolder_has_the_config_of_its_stage(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 3\nname: run\nmethod: {api_key: abcdefgh1234}\n")
    settings = WandbLogger(tmp_path / "run" / "from_scratch")._wandb_init
    assert settings["name"] == "run/from_scratch"
    assert settings["config"] == {"seed": 3, "name": "run", "method": {"api_key": "***"}}
    assert settings["group"] == "run"
    assert settings["id"] != WandbLogger(tmp_path / "run")._wandb_init["id"]


CONFIG = """seed: 3
name: sweep/lr=0.1
method: {name: toy, api_key: supersecret1234}
choices: {method: toy, data: images, stage: pretrain}
"""


@pytest.mark.slow
def test_an_offline_wandb_run_holds_all_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    (tmp_path / "config.yaml").write_text(CONFIG)
    first = WandbLogger(tmp_path / "part")
    first.experiment.log({"a": 1})  # an earlier training of the same process
    logger = WandbLogger(tmp_path, project="p")
    fit(ToyMethod(), tmp_path, [OnlineKNN(), ViewMosaic(tmp_path), StepLogger(2)], logger=logger, max_epochs=1)
    (tmp_path / "report.html").write_text("<html>")
    sheet = thumbnails.sheet([np.full((8, 8, 3), i, np.uint8) for i in (10, 200)], 8)
    arrays = {"labels": np.array([0, 1]), "found": np.array([0, 0]), "indices": np.array([4, 7]), "sheet": sheet}
    kept.write(tmp_path, {"side": 8, "classes": ["cat", "dog"]}, arrays)
    logger.log_results({"knn_top1": 0.5, "baselines": {"random_init": {"knn_top1": 0.3}}})
    wandb.finish()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert run.name.endswith(run_id(tmp_path))
    found = list(written(run))
    (begun,) = (record.run for record in found if record.WhichOneof("record_type") == "run")
    assert (begun.run_group, begun.job_type, begun.display_name) == ("sweep", "pretrain", tmp_path.name)
    assert list(begun.tags) == ["toy", "images", "pretrain", "sweep"]
    assert {update.key for update in begun.config.update} >= {"seed", "method", "choices"}
    metrics = {r.metric.glob_name: r.metric for r in found if r.WhichOneof("record_type") == "metric"}
    assert metrics["val/*"].step_metric == "epoch"
    assert metrics["train/*"].step_metric == "trainer/global_step"
    assert metrics["val/*"].summary.last
    assert not metrics["val/*"].summary.max
    summary = {"/".join(u.nested_key) or u.key: u.value_json for r in found for u in r.summary.update}
    assert summary["baselines/random_init/knn_top1"] == "0.3"
    assert {"train/loss", "val/knn_top1", "views/filenames"} <= summary.keys()
    artifacts = {r.artifact.type: r.artifact for r in found if r.WhichOneof("record_type") == "artifact"}
    assert [entry.path for entry in artifacts["report"].manifest.contents] == ["report.html"]
    table = json.loads(next(run.rglob("predictions*.table.json")).read_text())
    assert [row[1:] for row in table["data"]] == [["dog", "cat", False], ["cat", "cat", True]]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "wandb").rglob("*") if path.is_file())
    assert b"supersecret1234" not in everything
    assert (tmp_path / "wandb" / "artifacts").is_dir()  # and nothing beside the run's folder
    assert torch.is_grad_enabled()


def written(run: Path) -> list[Any]:
    """The records, once W&B's own process has written the last: in its own time."""
    deadline, found = time.monotonic() + 60, list[Any]()
    while time.monotonic() < deadline:
        found = list(records(next(run.glob("*.wandb"))))
        if found and found[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.1)
    return found


TINY = ["data.size=64", "data.test_size=32", "data.batch_size=32", "trainer=cpu"]
TINY += ["trainer.enable_progress_bar=false", "seed=0,1"]


@pytest.mark.long
@pytest.mark.parametrize("stage", ["pretrain", "knn"])
def test_the_jobs_of_a_sweep_are_one_group_and_evaluations_log_their_results(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    words = ["trainer.max_epochs=1", "backbone.width=4"]
    if stage == "knn":
        (tmp_path / "run").mkdir()
        words = ["stage=knn", f"ckpt={a_run(tmp_path / 'run')}", "data=shapes"]
    assert main(["-m", "name=mine", *words, *TINY, f"runs_dir={tmp_path}", "logger=[csv,wandb]"]) == 0
    for seed in (0, 1):
        job = tmp_path / "mine" / f"seed={seed}"
        (run,) = (job / "wandb").glob("offline-run-*")
        found = list(written(run))
        (begun,) = (record.run for record in found if record.WhichOneof("record_type") == "run")
        assert (begun.run_group, begun.job_type, begun.display_name) == ("mine", stage, f"seed={seed}")
        assert "sweep" in begun.tags
        results = json.loads((job / "results.json").read_text())
        summary = {"/".join(u.nested_key) or u.key: u.value_json for r in found for u in r.summary.update}
        assert json.loads(summary["knn_top1"]) == results["knn_top1"]
        assert json.loads(summary["baselines/random_init/knn_top1"]) == results["baselines"]["random_init"]["knn_top1"]
        artifacts = {r.artifact.type for r in found if r.WhichOneof("record_type") == "artifact"}
        assert "report" in artifacts


def test_tensorboard_takes_config_and_results(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "config.yaml").write_text(CONFIG)
    logger = TensorBoardLogger(tmp_path)
    logger.log_results({"knn_top1": 0.5, "worth": float("nan"), "baselines": {"random_init": {"knn_top1": 0.3}}})
    logger.finalize("success")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert "api_key: '***'" in texts["config/text_summary"]
    assert '"knn_top1": 0.5' in texts["results/text_summary"]
    assert events.Scalars("results/baselines.random_init.knn_top1")[0].value == pytest.approx(0.3)
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("tensorboard/*"))
    assert b"supersecret1234" not in everything


@pytest.mark.slow
def test_wandb_with_a_key_and_without_an_answer_is_refused_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes the call and never answers; it is not waited for as long as W&B would by itself, 90 s."""
    pytest.importorskip("wandb")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name, value in (("API_KEY", "0" * 40), ("BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")):
            monkeypatch.setenv(f"WANDB_{name}", value)
        monkeypatch.setenv("WANDB_SILENT", "true")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setattr(wandb_logger, "PATIENCE", 2.0)
        logger = WandbLogger(tmp_path)
        with pytest.raises(UserError, match=r"W&B cannot begin .*; set WANDB_MODE=offline to keep") as refused:
            _ = logger.experiment
        assert "\n" not in str(refused.value)
