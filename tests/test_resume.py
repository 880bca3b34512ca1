"""Exact resume: a run killed at a random step and started again ends bitwise where an uninterrupted one ends."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.harness import METHODS

STEPS_PER_EPOCH = 10


SMALL = {
    "wmse": ["method.loss.size=16"],
    "swav": ["recipe.prototypes=10", "recipe.swav.queue_size=64"],
    "deepcluster_v2": ["recipe.prototypes=10"],
}


def command(method: str, name: str, folder: Path) -> list[str]:
    heads = ["method.projector.hidden_dim=16", "method.projector.out_dim=8"]
    small = ["data.size=320", "data.test_size=64", "data.batch_size=32", "backbone.width=8", "recipe.queue_size=100"]
    often = ["trainer.max_epochs=3", "callbacks.checkpoint.every_n_steps=1", "stage.judge=false"]
    start = [sys.executable, "-m", "ssl_lightning", f"method={method}", f"name={name}", f"runs_dir={folder}"]
    return [*start, *small, *heads, *often, *SMALL.get(method, [])]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def last_checkpoint(folder: Path, name: str) -> Path:
    return folder / name / "checkpoints" / "last.ckpt"


def kill_after(process: "subprocess.Popen[bytes]", checkpoint: Path, saves: int) -> None:
    """SIGKILL once the checkpoint has been written `saves` times: anywhere in a step, even inside a write."""
    seen, stamp = 0, 0
    while seen < saves and process.poll() is None:
        if checkpoint.exists() and (now := checkpoint.stat().st_mtime_ns) != stamp:
            seen, stamp = seen + 1, now
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """A nested structure as {path: leaf}."""
    if isinstance(value, dict):
        items = [(f"{name}.{k}", v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{name}.{i}", v) for i, v in enumerate(value)]
    else:
        return {name: value}
    return {path: leaf for key, child in items for path, leaf in leaves(child, key).items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_equals_uninterrupted(method: str, tmp_path: Path) -> None:
    once = command(method, "whole", tmp_path)
    whole = subprocess.run(once, env=environment(tmp_path), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    cut = command(method, "cut", tmp_path)
    saves = random.Random(method).randint(3, 3 * STEPS_PER_EPOCH - 5)
    process = subprocess.Popen(cut, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_after(process, last_checkpoint(tmp_path, "cut"), saves)
    assert process.returncode == -signal.SIGKILL
    stopped_at = torch.load(last_checkpoint(tmp_path, "cut"), weights_only=True)["global_step"]
    assert 0 < stopped_at < 3 * STEPS_PER_EPOCH
    again = subprocess.run(cut, env=environment(tmp_path), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resum" in (again.stdout + again.stderr).lower()

    one, two = (torch.load(last_checkpoint(tmp_path, name), weights_only=True) for name in ("whole", "cut"))
    assert one["global_step"] == two["global_step"] == 3 * STEPS_PER_EPOCH
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        left, right = leaves(one[part]), leaves(two[part])
        assert left.keys() == right.keys()
        for key, value in left.items():
            same = torch.equal(value, right[key]) if isinstance(value, Tensor) else value == right[key]
            assert same, f"{part}{key} differs after a kill at step {stopped_at}"
