"""stage=linear: how much can a linear layer read out of frozen features?

By default the features are computed once and a whole grid of probes is trained on them in one pass. With
`stage.augmented=true` one linear layer is trained on augmented views instead, the backbone run anew in each epoch: the
protocol of the published tables, many times slower and seldom a point apart.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.judge import KeepProbe, calibrate_batchnorm, constant, metric_of
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.modalities.image.hooks import Pixels as Pixels
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.reports.keep import Keeper
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import (
    Judged,
    MakeTrainer,
    Stopwatch,
    calibration_batches,
    device_of,
    report,
    same_items,
)
from ssl_lightning.stages.judging import Keep, need_labels, verdict_on
from ssl_lightning.stages.kept_features import Cache
from ssl_lightning.stages.opening import tell_backbone, tell_items
from ssl_lightning.stages.probes import OtherData, Probes, data_of, measured
from ssl_lightning.stages.trained import keep_model, keep_probe
from ssl_lightning.stages.training import LabelledData, picking_split, told, train_and_test
from ssl_lightning.tasks.finetuner import Finetuner


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    seed: int,
    probe: ProbeSettings | None = None,
    augmented: bool = False,
    epochs: int = 100,
    batch_size: int = 256,
    base_lr: float = 0.1,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    task: Task | None = None,
    other_data: OtherData | None = None,
    probes: Probes | None = None,
    data_name: str = "",
    cache: Cache = "auto",
) -> dict[str, Any]:
    """A linear layer on the frozen backbone, on random weights and on naive features (an image's pixels), all alike.

    The backbone and its linear layer are left behind as `model.safetensors`.

    Args:
        probe: the grid, for features computed once.
        augmented: train on augmented views; what follows is for this alone.
        epochs, batch_size, base_lr: SGD with momentum 0.9 and cosine, the rate at a global batch of 256.
        crop_scale: share of an item that a crop keeps, of an image of its area.
        task: what labels mean; None: classes.
        other_data: makes the data of a probe.
        probes: further labels to tell from the same features, {name: what of the data is another}; not augmented.
        data_name: of the data, for the model's card.
        cache: features are kept in the cache folder, and taken from there; None: computed anew. Not augmented.
    """
    watch = Stopwatch()
    same_items(judged, data)
    task = need_labels(data, "linear", task)
    probed = data_of(probes, other_data, partial(same_items, judged), "linear", task)
    if probed and augmented:
        raise UserError("stage.probes needs features that are computed once; leave out stage.augmented=true")
    device = device_of(trainer)
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device)
    if not augmented:
        given = (device, probe or ProbeSettings(seed=seed), cache)
        keeper = Keeper(run.path, data, judged.backbone, run.overrides)
        found = on_features(judged, data, task, *given, keeper, partial(keep_probe, judged, data, task, run, data_name))
        found |= measured(probed, lambda other, its: on_features(judged, other, its, *given))
        return report(judged, watch, **found)

    views, rows = data.weak_views(crop_scale), picking_split(data, 0)
    recipe = OptimizerRecipe(partial(SGD, momentum=0.9), base_lr, 0.0, WarmupCosine(0))

    def scores(network: nn.Module, name: str) -> dict[str, float]:
        torch.manual_seed(seed)
        module = Finetuner(network, task, recipe, frozen=True)
        labelled = LabelledData(data, *rows, views, batch_size)
        found = train_and_test(module, labelled, trainer, run.path / name, epochs, seed).scores
        if name == "linear":
            keep_model(judged, data, run, "linear", data_name, module)
        return found

    calibrate_batchnorm(judged.random, calibration_batches(data))
    naive = data.naive_network()
    mine, random = scores(judged.backbone, "linear"), scores(judged.random, "random_init")
    others = {"random_init": told(random, "linear", task)}
    others |= {data.naive_name: told(scores(naive, data.naive_name), "linear", task)} if naive is not None else {}
    others |= constant(data.targets("train", rows[0]), data.targets("test", data.labelled_indices("test")), task)
    mains = mine[task.main], random[task.main]
    return report(
        judged, watch,
        **told(mine, "linear", task),
        **metric_of(task),
        baselines=others,
        verdict=verdict.against(*mains, len(data.test_set), task, "random weights", others),
        labels=len(rows[0]),
        protocol={
            "linear": "linear layer behind a BatchNorm without scale, random crops and flips, SGD momentum 0.9, rate "
            f"{base_lr:g} x batch / 256, cosine, {epochs} epochs, last epoch; test set seen once"
        },
    )  # fmt: skip


def on_features(
    judged: Judged,
    data: DataModule,
    task: Task,
    device: torch.device,
    probe: ProbeSettings,
    cache: Cache = None,
    keep: Keep | None = None,
    keep_probe: KeepProbe | None = None,
) -> dict[str, Any]:
    """Features once, then the grid."""
    backbone, random, only = judged.backbone.to(device), judged.random.to(device), ("linear",)
    found, train, _ = verdict_on(
        backbone,
        random,
        data,
        task,
        device,
        probe=probe,
        what=only,
        naive_what=only,
        keep=keep,
        keep_probe=keep_probe,
        cache=cache,
    )
    return {**found, "labels": len(train)}
