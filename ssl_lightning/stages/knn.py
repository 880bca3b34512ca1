"""stage=knn: how well do the nearest neighbours of a test item tell its label?"""

from functools import partial
from typing import Any

import torch

from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.reports.keep import Keeper
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import Judged, MakeTrainer, Stopwatch, device_of, report, same_items
from ssl_lightning.stages.judging import Keep, need_labels, verdict_on
from ssl_lightning.stages.kept_features import Cache
from ssl_lightning.stages.opening import tell_backbone, tell_items
from ssl_lightning.stages.probes import OtherData, Probes, data_of, measured


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int | None = None,
    task: Task | None = None,
    other_data: OtherData | None = None,
    probes: Probes | None = None,
    run: RunFolder | None = None,
    cache: Cache = "auto",
) -> dict[str, Any]:
    """Cosine kNN weighted by exp(cosine / temperature); the bank is every training item whose label may be used.

    Args:
        k: neighbours that vote, or whose targets are averaged; all of a smaller bank.
        chunk: test items at a time; None chooses by the size of the bank.
        task: what labels mean; None: classes.
        other_data: makes the data of a probe.
        probes: further labels to tell from the same features, {name: what of the data is another}.
        run: where the features of the page are kept.
        cache: features are kept in the cache folder, and taken from there; None: computed anew.
    """
    watch, device = Stopwatch(), device_of(trainer)
    same_items(judged, data)
    task = need_labels(data, "knn", task)
    others = data_of(probes, other_data, partial(same_items, judged), "knn", task)
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device)
    given = (k, temperature, chunk, cache)
    keep = Keeper(run.path, data, judged.backbone, run.overrides, k, temperature) if run is not None else None
    found = on_neighbours(judged, data, task, device, *given, keep)
    found |= measured(others, lambda other, its: on_neighbours(judged, other, its, device, *given))
    return report(judged, watch, **found)


def on_neighbours(
    judged: Judged,
    data: DataModule,
    task: Task,
    device: torch.device,
    k: int,
    temperature: float,
    chunk: int | None,
    cache: Cache = None,
    keep: Keep | None = None,
) -> dict[str, Any]:
    """The kNN of trained, random and naive features of these data."""
    backbone, random = judged.backbone.to(device), judged.random.to(device)
    given, only = (task, device, k, temperature), ("knn",)
    return verdict_on(backbone, random, data, *given, what=only, chunk=chunk, keep=keep, cache=cache)[0]
