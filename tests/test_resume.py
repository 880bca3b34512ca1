"""Exact resume: a run killed at a random step and started again ends bitwise where an uninterrupted one ends."""

import contextlib
import json
import multiprocessing
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

from ssl_lightning.__main__ import main
from ssl_lightning.cli.compose import compose
from tests.methods.harness import METHODS, needs_vit

STEPS = 12  # 3 epochs of 4
# A queue, a teacher, prototypes, crops, masks. The other methods are long.
FIRST = ("moco", "byol", "swav", "dino", "mae")
SMALL = {
    "wmse": ["method.loss.size=16", "method.projector.out_dim=8"],
    "swav": ["method.prototypes=10", "method.queue_size=64"],
    "deepcluster_v2": ["method.prototypes=10"],
    "dino": ["method.projector.out_dim=10"],
    "ibot": ["method.projector.out_dim=10"],
    "dinov2": ["method.projector.out_dim=10"],
    "data2vec": ["method.target_blocks=2"],
    "msn": ["method.prototypes=10"],
    "cpc": ["method.context.hidden_dim=8"],
    "ijepa": ["method.predictor.dim=16", "method.predictor.heads=2"],
    "jigsaw": ["method.projector.out_dim=10"],
    "mae": ["method.decoder.dim=16", "method.decoder.heads=2"],
}
# Runs command lines one after another in one process (to import torch takes longer than to train) and tells their ends.
IN_TURN = """
import json, sys
from ssl_lightning.__main__ import main
from ssl_lightning.cli.compose import compose
print(json.dumps({name: main(words) for name, words in json.loads(sys.argv[1]).items()}))
"""
# For a run of its own process: one that has imported everything copies itself each time.
COPIES = multiprocessing.get_context("forkserver")
COPIES.set_forkserver_preload(["tests.test_resume", "ssl_lightning.cli.run", "ssl_lightning.stages.pretrain"])


def heads(method: str) -> list[str]:
    """What makes a method's head and queue small, as far as it has them."""
    node = compose([f"method={method}"]).values["method"]
    found = ["method.queue_size=64"] if node.get("queue_size") else []
    if "projector" in node:
        out = "bottleneck_dim" if "bottleneck_dim" in node["projector"] else "out_dim"
        found += ["method.projector.hidden_dim=16"] if node["projector"].get("num_layers", 2) > 1 else []
        found += [f"method.projector.{out}=8"] if method != "relative_position" else []  # of which there are 8
    return found


def words(method: str, name: str, folder: Path) -> list[str]:
    small = ["data.size=128", "data.test_size=32", "data.batch_size=32"]
    small += ["backbone.dim=16", "backbone.heads=2", "backbone.depth=2"] if needs_vit(method) else ["backbone.width=8"]
    often = ["trainer.max_epochs=3", "callbacks.checkpoint.every_n_steps=1", "stage.judge=false"]
    start = [f"method={method}", f"name={name}-{method}", f"runs_dir={folder}"]
    return [*start, *small, *heads(method), *often, *SMALL.get(method, [])]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def last_checkpoint(folder: Path, name: str) -> Path:
    return folder / name / "checkpoints" / "last.ckpt"


def all_in_turn(name: str, methods: list[str], folder: Path) -> "subprocess.Popen[str]":
    commands = json.dumps({method: words(method, name, folder) for method in methods})
    command = [sys.executable, "-c", IN_TURN, commands]
    with open(folder / f"{name}.txt", "w") as log:
        return subprocess.Popen(command, env=environment(folder), stdout=log, stderr=subprocess.STDOUT, text=True)


def alone(argv: list[str], folder: Path) -> None:
    os.environ.update(environment(folder))
    torch.set_num_threads(1)  # torch, imported by then, does not look into the environment again
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        sys.exit(main(argv))


def run_and_kill(method: str, folder: Path) -> int:
    """SIGKILL once the checkpoint was written a random number of times: anywhere in a step, even inside a write."""
    process = COPIES.Process(target=alone, args=(words(method, "cut", folder), folder))
    process.start()
    checkpoint, saves = last_checkpoint(folder, f"cut-{method}"), random.Random(method).randint(3, STEPS - 2)
    seen, stamp = 0, 0
    try:
        while seen < saves and process.is_alive():
            if checkpoint.exists() and (now := checkpoint.stat().st_mtime_ns) != stamp:
                seen, stamp = seen + 1, now
            time.sleep(0.001)
    finally:
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """A nested structure as {path: leaf}."""
    if isinstance(value, dict):
        items = [(f"{name}.{k}", v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{name}.{i}", v) for i, v in enumerate(value)]
    else:
        return {name: value}
    return {path: leaf for key, child in items for path, leaf in leaves(child, key).items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each selected method uninterrupted, killed and resumed; what the processes ended with, where they were killed."""
    folder = tmp_path_factory.mktemp("resume")
    here = [item for item in request.session.items if item.path == request.path]
    methods = [item.callspec.params["method"] for item in here if isinstance(item, pytest.Function)]
    whole = all_in_turn("whole", methods, folder)
    ends = {method: run_and_kill(method, folder) for method in methods}
    stopped = {
        method: torch.load(last_checkpoint(folder, f"cut-{method}"), weights_only=True)["global_step"]
        for method in methods
    }
    assert whole.wait() == 0, (folder / "whole.txt").read_text()
    again = all_in_turn("cut", methods, folder)
    assert again.wait() == 0, (folder / "cut.txt").read_text()
    said = (folder / "cut.txt").read_text()
    return {"folder": folder, "killed": ends, "stopped": stopped, "said": said}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "method", [method if method in FIRST else pytest.param(method, marks=pytest.mark.long) for method in METHODS]
)
def test_killed_and_resumed_equals_uninterrupted(method: str, runs: dict[str, Any]) -> None:
    folder, stopped_at = runs["folder"], runs["stopped"][method]
    assert runs["killed"][method] == -signal.SIGKILL
    assert 0 < stopped_at < STEPS
    assert f"resuming {folder / f'cut-{method}'} from" in runs["said"]
    ends = [json.loads((folder / f"{name}.txt").read_text().splitlines()[-1]) for name in ("whole", "cut")]
    assert [end[method] for end in ends] == [0, 0]

    one, two = (torch.load(last_checkpoint(folder, f"{n}-{method}"), weights_only=True) for n in ("whole", "cut"))
    assert one["global_step"] == two["global_step"] == STEPS
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        left, right = leaves(one[part]), leaves(two[part])
        assert left.keys() == right.keys()
        for key, value in left.items():
            same = torch.equal(value, right[key]) if isinstance(value, Tensor) else value == right[key]
            assert same, f"{part}{key} differs after a kill at step {stopped_at}"
