"""stage=pretrain: train a method without labels, save its backbone, and judge what it learned."""

import copy
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from ssl_lightning.callbacks.page import Page
from ssl_lightning.callbacks.throughput import Throughput
from ssl_lightning.core.distributed import is_main
from ssl_lightning.core.protocols import has_tokens
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation import verdict
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.reports.keep import Keeper
from ssl_lightning.runs import sharded
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.runs.judged_node import judged_node
from ssl_lightning.stages.common import (
    MakeTrainer,
    Start,
    Stopwatch,
    check_batch,
    peak_memory_mb,
    speed,
)
from ssl_lightning.stages.judging import judge_backbone
from ssl_lightning.stages.opening import Opening
from ssl_lightning.stages.probes import OtherData, Probes, data_of, on_features
from ssl_lightning.tasks.classify import Classify


def run(
    method: SSLMethod,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    method_name: str,
    data_name: str,
    channels_last: bool = True,
    compile: bool = False,
    judge: bool = True,
    k: int = 20,
    temperature: float = 0.07,
    start: Start | None = None,
    backbone_rate: float = 1.0,
    layer_decay: float = 1.0,
    task: Task | None = None,
    other_data: OtherData | None = None,
    probes: Probes | None = None,
) -> dict[str, Any]:
    """Trains to the last epoch, resuming from the run's last checkpoint, and judges that last epoch.

    Args:
        channels_last: memory layout of the network; about twice as fast for convolutions, on CPU and GPU.
        compile: torch.compile the backbone.
        judge: measure kNN, linear probe, quality and both baselines at the end.
        k: neighbours that vote in the kNN.
        temperature: weight of a neighbour, exp(cosine / temperature).
        start: the weights of a `ckpt=` that the backbone begins with; they are then a baseline, too.
        backbone_rate: the backbone's rate as a share of that of the heads, which begin with random weights.
        layer_decay: each block of the backbone learns this many times slower than the next one; 1 = all alike.
        task: what labels mean, for the evaluation; None: classes.
        other_data: makes the data of a probe.
        probes: further labels to evaluate the features on at the end, {name: what of the data is another}.
    """
    watch = Stopwatch()
    check(method, data, task)
    alike = partial(fed_alike, method, data)
    if judge:  # refused before the training, and read again after it: no second copy of the data in between
        data_of(probes, other_data, alike, "pretrain", task or Classify())
    method.backbone_rate, method.layer_decay = backbone_rate, layer_decay
    begun = copy.deepcopy(method.backbone)  # the very weights this run begins with
    make_fast(method, channels_last, compile)
    fit, throughput = train(method, data, trainer, run, Opening(method_name, data_name))
    if is_main():
        card = {"method": method_name, "data": data_name, **data.card()}
        save_backbone(method.judged, judged_node(run.config), run.path, **card)
    results: dict[str, Any] = {"ckpt": start.ref} if start else {}
    still, device = verdict.of_weights(method.backbone, begun), fit.strategy.root_device
    if judge:
        embed, random = method.to(device).embed, (start.random if start else begun).to(device)
        before = begun.to(device) if start and start.loaded else None  # a baseline, too
        keep = Keeper(run.path, data, method, run.overrides, k, temperature)
        results |= judge_backbone(embed, random, data, device, k, temperature, start=before, task=task, keep=keep)
        probed = data_of(probes, other_data, alike, "pretrain", task or Classify())
        results |= on_features(embed, random, probed, device, k, temperature)
    if still:
        results["verdict"] = " ".join([still, *([results["verdict"]] if "verdict" in results else [])])
    return {
        **results,
        "epochs": fit.current_epoch,
        "steps": fit.global_step,
        **speed(data, throughput.images_per_second),
        "seconds": round(watch.seconds, 1),
        "peak_memory_mb": round(peak_memory_mb(device), 1),
    }


def check(method: SSLMethod, data: DataModule, task: Task | None) -> None:
    """Raise a UserError for data and views that the method cannot train on, before any is read."""
    if task is not None:
        data.read_labels(task.reads)
    data.check_network(method.backbone)
    check_batch(method, data)
    if data.views is not None:
        method.accept(data.views.sizes(), data.views.roles())


def fed_alike(method: SSLMethod, data: DataModule, other: DataModule) -> None:
    """Feed the data of a probe to the network as those of the training."""
    other.check_network(method.backbone)
    other.fed_as(data.card())


def make_fast(method: SSLMethod, channels_last: bool, compile: bool) -> None:
    """Lay the weights out anew, and compile the backbones, as asked for; what is computed stays the same."""
    if channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for network in (method.backbone, *(teacher for _, teacher in method.teacher_pairs())) if compile else ():
        # A token encoder is called by other names than its own as well (`tokens`): its blocks are to be compiled.
        blocks = getattr(network, "blocks", None)
        (blocks if has_tokens(network) and isinstance(blocks, nn.Sequential) else network).compile()


def train(
    method: SSLMethod, data: DataModule, trainer: MakeTrainer, run: RunFolder, opening: Opening
) -> tuple[Trainer, Throughput]:
    """Train to the last epoch, from the run's checkpoint where there is one."""
    fit, throughput = trainer(), Throughput()
    fit.callbacks[:0] = [opening, throughput]  # type: ignore[attr-defined]
    for page in fit.callbacks:  # type: ignore[attr-defined]
        if isinstance(page, Page):
            page.command = run.overrides
    fit.fit(method, datamodule=data, ckpt_path=sharded.checked(run.checkpoint, fit.strategy), weights_only=True)
    return fit, throughput
