"""A run's folder: begun, resumed, finished, refused."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import folder as run_folder
from ssl_lightning.runs import locks
from ssl_lightning.runs.folder import RunFolder, differences, find_run, fingerprint, flatten

CONFIG: dict[str, Any] = {
    "name": "a",
    "seed": 0,
    "resume": "auto",
    "data": {"batch_size": 128, "num_workers": 0, "mean": [0.5, 0.5]},
    "trainer": {"devices": 1, "enable_progress_bar": True},
    "logger": {"csv": {"_target_": "x"}},
    "callbacks": {"progress": {"lines": 1}, "probe": None},
}


def changed(**leaves: Any) -> dict[str, Any]:
    """CONFIG with some dotted keys changed (`__` for a dot)."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in leaves.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def add_checkpoint(folder: RunFolder) -> Path:
    path = folder.path / "checkpoints" / "last.ckpt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("weights")
    return path


def test_flatten() -> None:
    assert flatten(CONFIG)["data.mean"] == [0.5, 0.5]
    assert flatten({"a": {"b": {}}, "c": None}) == {"a.b": {}, "c": None}
    assert flatten({}) == {}


def test_new_then_resumed_then_finished(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a"
    folder = RunFolder(path)
    assert folder.open(CONFIG) == "new"
    assert yaml.safe_load((path / "config.yaml").read_text()) == CONFIG
    assert folder.config == CONFIG
    assert RunFolder(path).open(CONFIG) == "new"  # nothing to go on from yet
    checkpoint = add_checkpoint(folder)
    again = RunFolder(path)
    assert again.open(CONFIG) == "resumed"
    assert again.checkpoint == checkpoint
    assert again.results() is None
    again.write_results({"knn_top1": torch.tensor(0.25), "path": path})
    assert again.finished
    assert again.results() == {"knn_top1": 0.25, "path": str(path)}
    assert RunFolder(path).open(CONFIG) == "finished"
    assert sorted(p.name for p in path.iterdir()) == ["checkpoints", "config.yaml", "results.json"]


@pytest.mark.parametrize(
    "free",
    [
        {"name": "b"},
        {"resume": "must"},
        {"data__num_workers": 8},
        {"trainer__enable_progress_bar": False},
        {"logger__wandb": {"_target_": "y"}},
        {"callbacks__progress": None},
        {"trusted_packages": ["mine"]},
        {"runs_dir": "elsewhere"},
        {"choices": {"method": "x"}},
    ],
)
def test_what_decides_nothing_may_differ(tmp_path: Path, free: dict[str, Any]) -> None:
    folder = RunFolder(tmp_path / "a")
    folder.open(CONFIG)
    add_checkpoint(folder)
    assert folder.open(changed(**free)) == "resumed"
    assert fingerprint(changed(**free)) == fingerprint(CONFIG)


def test_another_config_is_refused_key_by_key_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a")
    folder.open(CONFIG)
    add_checkpoint(folder)
    before = {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()}
    other = changed(seed=1, data__batch_size=64, data__size=5, data__mean=[0.0, 0.0], callbacks__probe={"lr": 1})
    with pytest.raises(UserError) as caught:
        RunFolder(folder.path).open(other)
    message = str(caught.value)
    for part in ("seed: 0 -> 1", "data.batch_size: 128 -> 64", "data.size: (absent) -> 5", "name=", "resume=never"):
        assert part in message
    assert "a.old-1" in message
    assert "\n" not in message
    assert {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()} == before
    assert fingerprint(other) != fingerprint(CONFIG)


def test_a_run_that_never_began_refuses_nothing(tmp_path: Path) -> None:
    """A mistyped data.root stops the first command; the mended one must not be refused for it."""
    folder = RunFolder(tmp_path / "a")
    folder.open(CONFIG)
    mended = changed(seed=1)
    assert RunFolder(folder.path).open(mended) == "new"
    add_checkpoint(folder)
    with pytest.raises(UserError, match="seed: 1 -> 0"):
        RunFolder(folder.path).open(CONFIG)


def test_a_long_difference_is_cut() -> None:
    other = changed(**{f"data__key{i}": i for i in range(20)})
    assert len(differences(CONFIG, other)) == 20
    assert differences(CONFIG, CONFIG) == []


def test_never_keeps_the_old_folder_beside(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for n in range(3):
        folder = RunFolder(path)
        assert folder.open(changed(seed=n), "never") == "new"
        add_checkpoint(folder).write_text(f"weights {n}")
        folder.write_results({"seed": n})
    kept = [tmp_path / f"a.old-{n}" / "checkpoints" / "last.ckpt" for n in (1, 2)]
    assert [path.read_text() for path in kept] == ["weights 0", "weights 1"]
    assert RunFolder(path).results() == {"seed": 2}


def test_must_needs_a_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a")
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        folder.open(CONFIG, "must")
    assert not folder.path.exists()
    folder.open(CONFIG)
    add_checkpoint(folder)
    assert folder.open(CONFIG, "must") == "resumed"


def test_other_ranks_write_and_move_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "a")
    folder.open(CONFIG)
    add_checkpoint(folder)
    monkeypatch.setenv("LOCAL_RANK", "1")
    child = RunFolder(tmp_path / "a")
    assert child.open(CONFIG, "never") == "resumed"
    child.write_results({"a": 1})
    with child.locked():
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]
    assert not child.finished
    assert RunFolder(tmp_path / "b").open(CONFIG) == "new"
    assert not (tmp_path / "b").exists()


def test_unwritable_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*choose another place with runs_dir"):
        RunFolder(tmp_path / "file" / "a").open(CONFIG)
    with pytest.raises(UserError, match="cannot write to"), RunFolder(tmp_path / "file" / "a").locked():
        pass

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder.files, "write_atomic", full)
    with pytest.raises(UserError, match="disk is full"):
        RunFolder(tmp_path / "b").open(CONFIG)


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"config\.yaml cannot be read"):
        RunFolder(tmp_path).open(CONFIG)


def test_find_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a")
    folder.open(CONFIG)
    checkpoint = add_checkpoint(folder)
    for ref in (folder.path, folder.path / "backbone.safetensors", checkpoint):
        assert find_run(str(ref)) == folder.path
    assert find_run(None) is None
    assert find_run("timm:resnet18") is None
    assert find_run(str(tmp_path / "elsewhere")) is None


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT", 0.2)
    with RunFolder(tmp_path / "a").locked():
        with pytest.raises(UserError, match="another process is at work"), RunFolder(tmp_path / "a").locked():
            pass
        with RunFolder(tmp_path / "b").locked():
            pass
    with RunFolder(tmp_path / "a").locked():
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    program = f"""
import time
from ssl_lightning.runs.folder import RunFolder
with RunFolder({str(tmp_path / "a")!r}).locked():
    print("locked", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    killer = threading.Timer(0.3, lambda: os.kill(process.pid, signal.SIGKILL))
    killer.start()
    with RunFolder(tmp_path / "a").locked():  # waits until then
        assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()


def test_results_are_replaced_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a")
    folder.open(CONFIG)
    folder.write_results({"a": 1})
    with pytest.raises(TypeError):
        folder.write_results({("no", "key"): 1})  # type: ignore[dict-item]
    assert folder.results() == {"a": 1}


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_results({"a": float("nan"), "b": {"c": [1.5, float("inf")]}, "d": None})
    text = (tmp_path / "results.json").read_text()
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == {
        "a": None,
        "b": {"c": [1.5, None]},
        "d": None,
    }
