"""W&B and TensorBoard in a run: everything lands in the run's folder, offline, and a resumed run keeps its id."""

import socket
import time
from pathlib import Path

import pytest
import torch

from ssl_lightning.callbacks import wandb_logger
from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.step_logger import StepLogger
from ssl_lightning.callbacks.tensorboard_logger import TensorBoardLogger
from ssl_lightning.callbacks.view_mosaic import ViewMosaic
from ssl_lightning.callbacks.wandb_logger import WandbLogger, has_key, run_id
from ssl_lightning.core.errors import UserError
from tests.callbacks.toy import ToyMethod, fit


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


@pytest.mark.slow
def test_wandb_offline_run_holds_config_curves_mosaic_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "config.yaml").write_text("seed: 3\nmethod: {name: toy}\n")
    logger = WandbLogger(tmp_path, project="p")
    fit(ToyMethod(), tmp_path, [OnlineKNN(), ViewMosaic(tmp_path), StepLogger(2)], logger=logger, max_epochs=1)
    logger.log_results({"knn_top1": 0.5, "baselines": {"random_init": {"knn_top1": 0.3}}})
    wandb.finish()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert run.name.endswith(run_id(tmp_path))
    words, missing = (b"train/loss", b"val/knn_top1", b"baselines/random_init/knn_top1", b"seed"), [b"all"]
    deadline = time.monotonic() + 30
    while missing and time.monotonic() < deadline:  # W&B's own process writes the file, in its own time
        record = next(run.glob("*.wandb")).read_bytes()
        missing = [word for word in words if word not in record]
        time.sleep(0.1)
    assert not missing
    kinds = {path.suffix for path in (run / "files/media").rglob("*.*")}
    assert kinds == {".png", ".json"}
    assert torch.is_grad_enabled()


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
