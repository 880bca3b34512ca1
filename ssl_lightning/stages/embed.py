"""stage=embed: the features of every item, with its label and path, in files for your own code."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import barrier, is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.items import ItemSet
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.evaluation.judge import quality
from ssl_lightning.runs.checkpoint import save_atomic
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages import opening
from ssl_lightning.stages.common import (
    IMAGE,
    Judged,
    MakeTrainer,
    Stopwatch,
    device_of,
    need_finite,
    report,
    same_items,
)

Split = Literal["train", "test"]


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    splits: Sequence[Split] = ("train", "test"),
    formats: Sequence[Literal["npz", "parquet"]] = ("npz",),
    task: Task | None = None,
) -> dict[str, Any]:
    """Writes `features_<split>.npz` and/or `.parquet` into the run's folder; labels are -1 where there are none.

    An npz holds `features` (N, D) float32, `labels` (N,), `indices` (N,), `classes`, and `paths` where there are files;
    where each item has several labels, or, with task=regress, numbers, `targets` (N, L) and `target_names`, too.
    A parquet table has the columns features, label, index, class and path, and one for each target: `target_label` is
    one that is named as one of these.
    """
    watch, device = Stopwatch(), device_of(trainer)
    if "parquet" in formats:
        need_pyarrow()
    same_items(judged, data)
    if task is not None:
        data.read_labels(task.reads)
    judged.backbone.to(device)
    opening.of_backbone(judged.backbone, judged.method, data, device)

    files, counts, measured, words = [], {}, {}, ""
    for split in splits:
        source = data.probe_set if split == "train" else data.test_set
        progress.say(f"features of {len(source):,} {split} {data.noun}s")
        with progress.phase(f"{split} {data.noun}s"):
            features = extract(judged.backbone, data.eval_loader(split), device)
        need_finite((split, features), noun=data.noun)
        for kind in formats:
            path = run.path / f"features_{split}.{kind}"
            if is_main():
                (write_npz if kind == "npz" else write_parquet)(path, features, source)
            files.append(str(path))
        counts[split], measured = len(features), quality(features, seed=data.seed)
        words = verdict.of({}, features.x, partial(data.naive_features, split, features.indices), data.noun)
    barrier()
    return report(
        judged, watch,
        files=files,
        **{"images" if data.modality == IMAGE else "samples": counts},
        out_dim=out_dim(judged.backbone),
        quality=measured,
        verdict=words,
        protocol={"embed": "evaluation view, frozen backbone in evaluation mode, float32"},
    )  # fmt: skip


def write_npz(path: Path, features: Features, source: ItemSet) -> None:
    """Plain arrays only, so that `np.load` needs no pickle."""
    arrays = {
        "features": features.x.numpy(),
        "labels": source.labels[features.indices].numpy(),
        "indices": features.indices.numpy(),
        "classes": np.array(source.classes, dtype=np.str_),
    }
    if source.paths is not None:
        arrays["paths"] = np.array([source.paths[i] for i in features.indices.tolist()], dtype=np.str_)
    if source.targets is not None:
        arrays["targets"] = source.targets[features.indices].numpy()
        arrays["target_names"] = np.array(source.target_names, dtype=np.str_)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # given a name, numpy would append .npz to it
            np.savez(file, **arrays)  # type: ignore[arg-type]

    save_atomic(write, path)


def write_parquet(path: Path, features: Features, source: ItemSet) -> None:
    """One row per item."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels, rows = source.labels[features.indices].tolist(), features.indices.tolist()
    names = [source.classes[label] if 0 <= label < len(source.classes) else None for label in labels]
    flat = pa.array(features.x.flatten().numpy())
    columns = {
        "index": pa.array(rows, pa.int64()),
        "label": pa.array(labels, pa.int64()),
        "class": pa.array(names, pa.string()),
        "path": pa.array([source.paths[i] for i in rows] if source.paths else [None] * len(rows), pa.string()),
        "features": pa.FixedSizeListArray.from_arrays(flat, features.x.shape[1]),
    }
    if source.targets is not None:
        titles = [f"target_{name}" if name in columns else name for name in source.target_names]
        columns |= {name: pa.array(source.targets[rows, i].tolist()) for i, name in enumerate(titles)}
    save_atomic(lambda temporary: pq.write_table(pa.table(columns), temporary), path)


def need_pyarrow() -> None:
    """Say so before any feature is computed."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        fix = "pip install 'ssl-lightning[parquet]', or stage.formats=[npz]"
        raise UserError(f"parquet needs the package pyarrow; {fix}") from error
