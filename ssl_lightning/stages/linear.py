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
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.judge import calibrate_batchnorm
from ssl_lightning.evaluation.linear_probe import ProbeResult, ProbeSettings, probe_grid
from ssl_lightning.modalities.image.hooks import Pixels as Pixels
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import (
    Judged,
    Stopwatch,
    TrainerFactory,
    calibration_batches,
    device_of,
    naive_features,
    need_finite,
    need_labels,
    report,
    same_items,
    split_features,
    split_random_features,
)
from ssl_lightning.stages.probes import OtherData, Probes, data_of, measured
from ssl_lightning.stages.training import LabelledData, picking_split, train_and_test
from ssl_lightning.tasks.finetuner import Finetuner


def run(
    judged: Judged,
    data: DataModule,
    trainer: TrainerFactory,
    run: RunFolder,
    seed: int,
    probe: ProbeSettings | None = None,
    augmented: bool = False,
    epochs: int = 100,
    batch_size: int = 256,
    base_lr: float = 0.1,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    other_data: OtherData | None = None,
    probes: Probes | None = None,
) -> dict[str, Any]:
    """A linear layer on the frozen backbone, on random weights and on naive features (an image's pixels), all alike.

    Args:
        probe: the grid, for features computed once.
        augmented: train on augmented views; what follows is for this alone.
        epochs, batch_size, base_lr: SGD with momentum 0.9 and cosine, the rate at a global batch of 256.
        crop_scale: share of an item that a crop keeps, of an image of its area.
        other_data: makes the data of a probe.
        probes: further labels to tell from the same features, {name: what of the data is another}; not augmented.
    """
    watch = Stopwatch()
    same_items(judged, data)
    need_labels(data, "linear")
    others = data_of(probes, other_data, judged, "linear")
    if others and augmented:
        raise UserError("stage.probes are measured on features computed once; leave out stage.augmented=true")
    if not augmented:
        device, settings = device_of(trainer), probe or ProbeSettings(seed=seed)
        found = on_features(judged, data, device, settings)
        found |= measured(others, lambda other: on_features(judged, other, device, settings))
        return report(judged, watch, **found)

    views, rows = data.weak_views(crop_scale), picking_split(data, 0)
    recipe = OptimizerRecipe(partial(SGD, momentum=0.9), base_lr, 0.0, WarmupCosine(0))

    def top1(network: nn.Module, name: str) -> float:
        torch.manual_seed(seed)
        module = Finetuner(network, data.num_classes, recipe, frozen=True)
        return train_and_test(
            module, LabelledData(data, *rows, views, batch_size), trainer, run.path / name, epochs, seed
        ).top1

    calibrate_batchnorm(judged.random, calibration_batches(data))
    naive = data.naive_network()
    return report(
        judged, watch,
        linear_top1=top1(judged.backbone, "linear"),
        baselines={
            "random_init": {"linear_top1": top1(judged.random, "random_init")},
            **({data.naive_name: {"linear_top1": top1(naive, data.naive_name)}} if naive is not None else {}),
        },
        labels=len(rows[0]),
        protocol={
            "linear": "linear layer behind a BatchNorm without scale, random crops and flips, SGD momentum 0.9, rate "
            f"{base_lr:g} x batch / 256, cosine, {epochs} epochs, last epoch; test set seen once"
        },
    )  # fmt: skip


def on_features(judged: Judged, data: DataModule, device: torch.device, probe: ProbeSettings) -> dict[str, Any]:
    """Features once, then the grid."""

    def best(train: Features, test: Features) -> ProbeResult:
        x, labels, test_x, test_labels = (t.to(device) for t in (train.x, train.labels, test.x, test.labels))
        return probe_grid(x, labels, test_x, test_labels, data.num_classes, probe)

    train, test = split_features(judged.backbone.to(device), data, device)
    need_finite(("train", train), ("test", test), noun=data.noun)
    linear = best(train, test)
    random = best(*split_random_features(judged.random.to(device), data, device))
    x, test_x = naive_features(data, train, test)
    naive = best(Features(x, train.labels, train.indices), Features(test_x, test.labels, test.indices))
    chosen = f"chosen lr {linear.lr:g}, weight decay {linear.weight_decay:g}"
    baselines = {"random_init": {"linear_top1": random.top1}, data.naive_name: {"linear_top1": naive.top1}}
    found: dict[str, Any] = {"linear_top1": linear.top1, "baselines": baselines}
    return {
        **found,
        **({"linear_top5": linear.top5} if linear.top5 is not None else {}),
        "verdict": verdict.of(found, test.x, lambda: test_x, data.noun),
        "labels": len(train),
        "protocol": {"linear": f"{probe.describe()}; {chosen}"},
    }
