"""Each method learns on `shapes`: after a short run its kNN beats the same backbone at random by a stated margin.

Kept out of `make test` for its length: `make test-learning`. Under a minute each on two cores.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.methods.harness import METHODS
from tests.test_resume import environment

pytestmark = pytest.mark.learning
MARGIN = 0.05  # of kNN accuracy over random weights; what most methods reach in so short a run is twice that
SHORT = ["data.size=10000", "data.test_size=2000", "trainer.max_epochs=3", "backbone.width=32", "stage.judge=false"]
OWN: dict[str, list[str]] = {}


@pytest.mark.parametrize("name", METHODS)
def test_a_short_run_beats_random_weights(name: str, tmp_path: Path) -> None:
    start = [sys.executable, "-m", "ssl_lightning", f"runs_dir={tmp_path}", "name=run", "data.size=10000"]
    pretrain = [*start, f"method={name}", *SHORT[1:], *OWN.get(name, [])]
    judge = [*start[:4], "stage=knn", f"ckpt={tmp_path / 'run'}", "data.size=10000", "data.test_size=2000", "name=knn"]
    for command in (pretrain, judge):
        done = subprocess.run(command, env=environment(Path(tmp_path)) | {"OMP_NUM_THREADS": "2"}, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
    found = json.loads((tmp_path / "knn" / "results.json").read_text())
    assert found["knn_top1"] > found["baselines"]["random_init"]["knn_top1"] + MARGIN, found
