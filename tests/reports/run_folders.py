"""Folders as runs leave them, made of a few numbers."""

import csv
import json
from pathlib import Path
from typing import Any

import yaml

CHOICES = {"method": "simclr", "data": "shapes", "stage": "pretrain", "task": "classify", "backbone": "convnet_small"}


def config(seed: int = 0, temperature: float = 0.2, lr: float = 0.1, **others: Any) -> dict[str, Any]:
    """A small config of a run."""
    return {
        "name": "x", "seed": seed, "resume": "auto",
        "data": {"_target_": "ssl_lightning.modalities.image.sources.shapes.Shapes", "batch_size": 8, "seed": seed},
        "method": {
            "_target_": "ssl_lightning.methods.simclr.SimCLR",
            "loss": {"_target_": "ssl_lightning.losses.nt_xent.NTXent", "temperature": temperature},
        },
        "optimizer": {"base_lr": lr},
        "trainer": {"max_epochs": 5},
        "choices": dict(CHOICES),
        **others,
    }  # fmt: skip


def make(folder: Path, node: dict[str, Any], knn: float | None, curve: tuple[float, ...] = (0.1, 0.2)) -> Path:
    """One run; `knn` None: it has not finished."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(node))
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "train/loss", "val/knn_top1"])
        for epoch, value in enumerate(curve):
            writer.writerow([10 * epoch, epoch, 5 - epoch, ""])
            writer.writerow([10 * epoch + 9, epoch, "", value])
    if knn is not None:
        found = {"stage": node["choices"]["stage"], "knn_top1": knn, "linear_top1": knn / 2, "seconds": 12.0}
        (folder / "results.json").write_text(json.dumps(found))
    return folder
