"""Small runs with one thing wrong each, beside sound ones: what the health on a page must and must not say.

    python -m benchmarks.sick_runs [--to tests/fixtures/health] [name ...]

Each is a run of the command line on `shapes`, about a minute on a core; its config, metrics, results and facts are kept
as one small JSON file, on which tests/reports/test_health.py works.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.reports import kept
from ssl_lightning.reports.read import metrics_of
from ssl_lightning.runs.places import config_of

SMALL = [
    "data=shapes",
    "data.size=1000",
    "data.test_size=400",
    "data.batch_size=64",
    "backbone.width=16",
    "trainer.max_epochs=6",
    "trainer.log_every_n_steps=5",
    "trainer.enable_progress_bar=false",
    "callbacks.collapse.every_n_steps=10",
]
VIT = [word for word in SMALL if not word.startswith("backbone")]
VIT += ["backbone=vit_tiny", "backbone.dim=64", "backbone.heads=2", "backbone.depth=4"]
SAME = (
    """views.global_1.scale=[1.0,1.0] views.global_1.jitter_p=0 views.global_1.grayscale_p=0 views.global_1.flip_p=0"""
)

SOUND: dict[str, list[str]] = {
    name: [f"method={name}", *SMALL]
    for name in ("simclr", "moco", "byol", "simsiam", "vicreg", "barlow_twins", "swav", "rotation", "nnclr")
}
SOUND["mae"] = ["method=mae", *VIT]
SICK: dict[str, list[str]] = {
    "sick_collapsed": ["method=vicreg", *SMALL, "method.loss.variance=0", "method.loss.covariance=0"],
    "sick_collapsed_direction": ["method=simsiam", *SMALL, "optimizer.base_lr=0.1"],
    "sick_dino": ["method=dino", *VIT],  # too short and too hot a training: its features keep one direction
    "sick_rate": ["method=simclr", *SMALL, "optimizer.base_lr=3"],
    "sick_not_learning": ["method=simclr", *SMALL, "optimizer.base_lr=1e-7"],
    "sick_normalisation": ["method=simclr", *SMALL, "data.mean=[128,128,128]", "data.std=[64,64,64]"],
    "sick_strong": ["method=simclr", *SMALL, "views.global_1.scale=[0.01,0.02]", "views.global_1.grayscale_p=0.9"],
    "sick_same_views": ["method=simclr", *SMALL, *SAME.split()],
    "sick_leak": ["method=simclr", *SMALL],
}


def leaked(folder: Path) -> list[str]:
    """Words for data in which 40 of 200 test images are training images."""
    from ssl_lightning.modalities.image.sources.shapes import Shapes

    made = Shapes(size=600, test_size=200, batch_size=64)
    train, test = made.train_set, made.test_set
    images, labels = train.images.numpy(), train.labels.numpy()
    test_images, test_labels = test.images.numpy().copy(), test.labels.numpy().copy()
    test_images[:40], test_labels[:40] = images[:40], labels[:40]
    file = folder / "leak.npz"
    np.savez(file, x_train=images, y_train=labels, x_test=test_images, y_test=test_labels)
    return ["data=array", f"data.root={file}", "data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]"]


def of_run(folder: Path) -> dict[str, Any]:
    """What the tests keep of a run: everything that `health.findings` is given."""
    rows = [{key: float(f"{value:.5g}") for key, value in row.items()} for row in metrics_of(folder)]
    results = json.loads((folder / "results.json").read_text())
    config = {
        part: value
        for part, value in config_of(folder).items()
        if part in ("method", "data", "optimizer", "trainer", "choices", "backbone", "views", "stage")
    }
    results.pop("health", None)
    about = {key: value for key, value in kept.read(folder).about.items() if key not in ("command", "device")}
    return {"rows": rows, "results": results, "config": config, "about": about}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of runs; all without")
    parser.add_argument("--to", type=Path, default=Path("tests/fixtures/health"))
    parser.add_argument("--runs", type=Path, help="where the runs are kept; a temporary folder without")
    asked = parser.parse_args()
    asked.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        runs = asked.runs or Path(temporary)
        for name, words in {**SOUND, **SICK}.items():
            if asked.names and name not in asked.names:
                continue
            if name == "sick_leak":
                words = [*words, *leaked(Path(temporary))]
                words = [w for w in words if w.partition("=")[0] not in ("data.size", "data.test_size")]
                words = [w for w in words if w != "data=shapes"] + ["experiment=cpu", "trainer.max_epochs=6"]
            command = [sys.executable, "-m", "ssl_lightning", *words, f"name={name}", f"runs_dir={runs}"]
            code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
            print(name, "done" if code == 0 else f"exit status {code}", flush=True)
            if code == 0:
                text = json.dumps(of_run(runs / name), separators=(",", ":"))
                (asked.to / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
