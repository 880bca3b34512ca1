"""stage=embed: the features of every item, with its label and path, in files for your own code."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import barrier, is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.files import atomic
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.judge import quality
from ssl_lightning.reports.keep import Keeper
from ssl_lightning.runs.folder import RunFolder
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
from ssl_lightning.stages.feature_files import FILES, FeatureFile, need_pyarrow
from ssl_lightning.stages.kept_features import Cache, parts_kept
from ssl_lightning.stages.opening import tell_backbone, tell_items

Split = Literal["train", "test"]
ROWS = 8192  # of a part: what is in memory at a time where no npz is written, by one process
MEASURED = 50_000  # about so many rows are measured of a larger split


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    splits: Sequence[Literal["train", "test", "all"]] = ("train", "test"),
    formats: Sequence[Literal["npz", "parquet", "csv"]] = ("npz",),
    task: Task | None = None,
    cache: Cache = "auto",
) -> dict[str, Any]:
    """Writes `features_<split>.npz`, `.parquet` or `.csv` into the run's folder; labels are -1 where there are none.

    An npz holds `features` (N, D) float32, `labels` (N,), `indices` (N,), `split` (N,), `classes`, and `paths` where
    there are files; where each item has several labels, or, with task=regress, numbers, `targets` (N, L) and
    `target_names`, too. A parquet table has the columns index, label, class, path, split and features (a list of D
    float32), and one for each target: `target_label` is one that is named as one of these. A csv has path, index,
    label, class, split, the targets, and f0 to f<D-1>; a text that a spreadsheet would take for a formula begins with
    an apostrophe. Both are written about 8,192 rows at a time: a folder may be larger than the memory.

    Args:
        splits: "all" puts both into one file, `features_all`, the training items first.
        cache: features are kept in the cache folder, and taken from there; None: computed anew.
    """
    watch, device = Stopwatch(), device_of(trainer)
    for key, asked in (("formats", formats), ("splits", splits)):
        if not asked:
            raise UserError(f"stage.{key}=[] leaves nothing to write; name one or more")
    if "parquet" in formats:
        need_pyarrow()
    same_items(judged, data)
    if task is not None:
        data.read_labels(task.reads)
    judged.backbone.to(device)
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device)

    files, counts, measured, words = [], {}, {}, ""
    seen: dict[str, Features] = {}
    for name in dict.fromkeys(splits):
        paths, parts = [run.path / f"features_{name}.{kind}" for kind in formats], dict[str, Sample]()
        with written(paths) as written_to:
            for split in ("train", "test") if name == "all" else (name,):
                source = data.probe_set if split == "train" else data.test_set
                sample = parts[split] = Sample(len(source))
                progress.say(f"features of {len(source):,} {split} {data.noun}s")
                with progress.phase(f"{split} {data.noun}s"):
                    for features in parts_kept(judged.backbone, data, split, device, cache, ROWS):
                        need_finite((split, features), noun=data.noun)
                        sample.add(features)
                        for file in written_to:
                            file.add(features, source, split)
                seen[split] = sample.features()
        files += [str(path) for path in paths]
        counts[name], kept = sum(part.count for part in parts.values()), sample.features()
        measured = quality(kept, seed=data.seed)
        words = verdict.of({}, kept.x, partial(data.naive_features, split, kept.indices), data.noun)
    if "test" in seen:
        Keeper(run.path, data, judged.backbone, run.overrides)(seen.get("train"), seen["test"])
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


class Sample:
    """Some rows of a split of N, evenly spread, or all of them where there are few."""

    def __init__(self, count: int) -> None:
        self.every, self.count, self.kept = max(1, count // MEASURED), 0, list[Features]()

    def add(self, features: Features) -> None:
        self.count += len(features)
        rows = features.indices % self.every == 0
        self.kept.append(Features(features.x[rows], features.labels[rows], features.indices[rows]))

    def features(self) -> Features:
        parts = ([part.x for part in self.kept], [part.labels for part in self.kept], [p.indices for p in self.kept])
        x, labels, indices = (torch.cat(part) for part in parts)
        return Features(x, labels, indices)


@contextmanager
def written(paths: Sequence[Path]) -> Iterator[list[FeatureFile]]:
    """Files that parts are added to: all whole at the end of the block, absent after an error; none but on rank 0."""
    with ExitStack() as stack:
        files = list[FeatureFile]()
        for path in paths if is_main() else ():
            files.append(FILES[path.suffix[1:]](stack.enter_context(atomic(path))))
            stack.callback(files[-1].close)
        yield files
        for file in files:
            file.finish()
