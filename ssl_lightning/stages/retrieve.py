"""stage=retrieve: the items that lie nearest to a query, and how often they are of its class."""

from typing import Any, Literal

from ssl_lightning.core import progress
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.retrieval import search
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages import retrieved
from ssl_lightning.stages.common import (
    Judged,
    MakeTrainer,
    Stopwatch,
    calibrated,
    device_of,
    need_finite,
    report,
    same_items,
)
from ssl_lightning.stages.kept_features import Cache, features_of
from ssl_lightning.stages.opening import tell_backbone, tell_items
from ssl_lightning.stages.queries import features_of_files
from ssl_lightning.stages.retrieved import Names
from ssl_lightning.tasks.classify import Classify


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    query: str | None = None,
    within: Literal["train", "test"] | None = None,
    k: int = 10,
    same: float = 0.95,
    task: Task | None = None,
    cache: Cache = "auto",
) -> dict[str, Any]:
    """Writes `neighbours.csv`, `near_duplicates.csv` and a gallery, and measures recall, precision and mAP at k.

    Without `query` and `within` each test item is a query and all training items are the index. The measures need
    labels, and stand beside those of random weights and of naive features.

    Args:
        query: a file, or a folder of files, to find the neighbours of among the training items; it has no labels.
        within: each item of this split queries the others of it.
        k: neighbours of each query; all of a smaller index.
        same: correlation of two items' evaluation views from which on they are near-duplicates.
        task: what labels mean; None: classes. With several labels, items that share one are alike.
        cache: features are kept in the cache folder, and taken from there; None: computed anew.
    """
    watch, device = Stopwatch(), device_of(trainer)
    if query is not None and within is not None:
        raise UserError("stage.query and stage.within exclude each other; leave one of them out")
    same_items(judged, data)
    if task is not None:
        data.read_labels(task.reads)
    judged.backbone.to(device)
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device)

    index_split: Literal["train", "test"] = within or "train"
    with progress.phase(f"{index_split} {data.noun}s"):
        index = features_of(judged.backbone, data, index_split, None, device, cache)
    asked = None if query is None else features_of_files(judged.backbone, judged.card, data, query)
    if query is not None or within is not None:
        queries = asked.features if asked is not None else index
    else:
        with progress.phase(f"test {data.noun}s"):
            queries = features_of(judged.backbone, data, "test", None, device, cache)
    need_finite((index_split, index), ("query", queries), noun=data.noun)
    cosines, rows = search(queries.x, index.x, k, within is not None, device)

    own = within is not None
    names = Names(data, index_split, within or "test", asked)
    found = retrieved.measured(queries, index, rows, own) if asked is None else {}
    others: dict[str, Any] = {}
    if found:
        with progress.phase("features of random weights"):
            random = calibrated(judged.random, data, device)
            train = features_of(random, data, "train", None, device, cache)
            test = features_of(random, data, "test", None, device, cache)
        others = retrieved.baselines((train, test), names, within, k, device)
    pairs = retrieved.near_duplicates(names, index, index_split, same, device)
    files = retrieved.write(run, names, queries, index, cosines, rows, pairs)
    retrieved.keep_gallery(run, names, queries, index, (cosines, rows), pairs)
    words = ""
    if found and "random_init" in others:
        pair = found["retrieve_top1"], others["random_init"]["retrieve_top1"]
        words = verdict.against(*pair, len(queries), Classify(), "random weights", others)
    return report(
        judged, watch, **found, **({"baselines": others, "verdict": words} if others else {}),
        queries=len(queries), index=len(index), near_duplicates=len(pairs), files=files,
        protocol={"retrieve": retrieved.protocol(query, within, rows.shape[1], len(index), same)},
    )  # fmt: skip
