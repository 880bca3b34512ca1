"""stage=quality: may a label-free number be trusted on these data? Every measure of every checkpoint beside kNN."""

from collections.abc import Sequence
from typing import Any

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import is_main
from ssl_lightning.core.files import atomic, write_atomic
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.reports.measured import as_csv
from ssl_lightning.reports.pages import quietly
from ssl_lightning.reports.run_files import find
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.checkpoints import kept, name_of
from ssl_lightning.stages.common import (
    Judged,
    MakeTrainer,
    Stopwatch,
    calibrated,
    device_of,
    report,
    same_items,
)
from ssl_lightning.stages.judging import need_labels
from ssl_lightning.stages.kept_features import Cache
from ssl_lightning.stages.measures import agreement, drawn, measured, views_of, words
from ssl_lightning.stages.opening import tell_backbone, tell_items


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    seed: int,
    runs: str | Sequence[str] | None = None,
    views: int = 8,
    items: int = 512,
    k: int = 20,
    temperature: float = 0.07,
    linear: bool = True,
    task: Task | None = None,
    cache: Cache = "auto",
) -> dict[str, Any]:
    """Writes `quality.csv` and `quality.png`: a row for each kept checkpoint of the run, of `runs`, and random weights.

    RankMe, effective rank, alpha-ReQ, uniformity, spread and intrinsic dimension are of the test items' features,
    alignment and LiDAR of training views of some training items. Rank correlations say which of them order the
    checkpoints as kNN and linear probe do. Without labels there are the measures alone.

    Args:
        runs: further runs on the same data: folders, a sweep's folder, or patterns, such as runs/byol-*.
        views: training views of each item, for alignment and LiDAR.
        items: training items whose views are drawn.
        k, temperature: of the kNN.
        linear: a linear probe for each checkpoint, too.
        task: what labels mean; None: classes.
        cache: features are kept in the cache folder, and taken from there; None: computed anew.
    """
    watch, device = Stopwatch(), device_of(trainer)
    same_items(judged, data)
    if task is not None:
        data.read_labels(task.reads)
    known = need_labels(data, "quality", task) if data.has_labels else None
    there = kept(judged, find([name_of(judged), *([runs] if isinstance(runs, str) else runs)]) if runs else ())
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device)
    probe = ProbeSettings(seed=seed)
    given = (known, device, k, temperature, probe if linear else None, cache)

    rows = list[dict[str, Any]]()
    for number, one in enumerate(there):
        told = f"{one.run}, {'the end' if one.epoch is None else f'epoch {one.epoch}'}"
        progress.say(f"checkpoint {number + 1} of {len(there)}: {told}")
        network = one.load(judged).to(device)
        pairs = views_of(network, data, items, views, device)
        rows.append({"run": one.run, "method": one.method, "epoch": one.epoch} | measured(network, pairs, data, *given))
    random = calibrated(judged.random, data, device)
    pairs = views_of(random, data, items, views, device)
    rows.append({"run": "random weights", "method": "", "epoch": None} | measured(random, pairs, data, *given))

    found = agreement(rows[:-1], known)
    files = [run.path / "quality.csv", run.path / "quality.png"]
    if is_main():
        write_atomic(files[0], as_csv(rows))
        with quietly("quality.png"), atomic(files[1]) as temporary:
            drawn(rows[:-1], found, known, temporary)
    return report(
        judged, watch, rows=rows, correlations=found, verdict=words(found, known, len(rows) - 1),
        files=[str(file) for file in files if file.is_file() or not is_main()],
        protocol={"quality": f"features of the test items; {views} training views of {min(items, len(data.train_set))} "
                  "training items for alignment and LiDAR"},
    )  # fmt: skip
