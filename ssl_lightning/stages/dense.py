"""stage=detect and stage=segment: a head on the maps of a pretrained backbone, beside training from scratch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.judge import metric_of
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import Judged, MakeTrainer, Stopwatch, device_of, report, same_items, speed
from ssl_lightning.stages.dense_files import write_pictures, write_torchvision
from ssl_lightning.stages.opening import tell_backbone, tell_items
from ssl_lightning.stages.training import LabelledData, picking_split, told, train_and_test
from ssl_lightning.tasks.dense import DenseTask, DenseTuner

STATISTICS = {True: "frozen", False: "learned"}  # of BatchNorm, in words


def tuned(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    seed: int,
    task: DenseTask,
    stage: str,
    epochs: int,
    batch_size: int,
    base_lr: float,
    weight_decay: float,
    layer_decay: float,
    warmup_epochs: float,
    zoom: tuple[float, float],
    flip_p: float,
    frozen: bool,
    frozen_statistics: bool,
    picking: float,
) -> dict[str, Any]:
    """AdamW, warm-up and cosine; scale jitter and flip; the checkpoint picked on a split of the labels, tested once.

    The twin with random weights learns as a whole, with BatchNorm statistics of its own: there are none to keep.
    """
    watch = Stopwatch()
    same_items(judged, data)
    task = need_annotations(data, stage, task)
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device_of(trainer))
    rows, held = picking_split(data, picking)
    labelled = partial(LabelledData, data, rows, held, data.dense_views(zoom, flip_p), batch_size)
    recipe = OptimizerRecipe(partial(AdamW, betas=(0.9, 0.999)), base_lr, weight_decay, WarmupCosine(warmup_epochs))

    def trained(network: nn.Module, name: str) -> Any:
        torch.manual_seed(seed)  # the same head in both
        mine = name == stage
        module = DenseTuner(network, task, recipe, layer_decay if mine else 1.0, frozen and mine,
                            frozen_statistics and mine, seed)  # fmt: skip

        def tell(outputs: Features) -> None:
            write_torchvision(module, task, data, judged.card, run.path)
            write_pictures(task, data, outputs, run.path)

        return train_and_test(module, labelled(), trainer, run.path / name, epochs, seed, tell if mine else None)

    pretrained, scratch = trained(judged.backbone, stage), trained(judged.random, "from_scratch")
    mains = pretrained.scores[task.main], scratch.scores[task.main]
    constant = constant_answer(task, data, rows)
    return report(
        judged, watch,
        **told(pretrained.scores, stage, task),
        per_class=pretrained.per_class,
        **metric_of(task),
        baselines={"from_scratch": told(scratch.scores, stage, task), **constant},
        verdict=verdict.against(*mains, len(data.test_set), task, "training from scratch", constant),
        labels=len(rows) + len(held),
        protocol={
            stage: f"{'frozen backbone' if frozen else 'whole network'}, {described(task)}, AdamW, rate {base_lr:g} x "
            f"batch / 256, weight decay {weight_decay:g}, layer decay {layer_decay:g}, {epochs} epochs, warm-up and "
            f"cosine, zoom {zoom[0]:g} to {zoom[1]:g}, flip {flip_p:g}, BatchNorm {STATISTICS[frozen_statistics]}; "
            + (f"checkpoint picked on {len(held)} of the labels" if len(held) else "last checkpoint")
            + ", tested once on whole images",
            "from_scratch": "the same network, labels, seed and budget, random weights, nothing frozen, layer decay 1",
        },
        epochs=epochs,
        steps=pretrained.steps,
        **speed(data, (pretrained.images + scratch.images) / (pretrained.seconds + scratch.seconds or 1)),
    )  # fmt: skip


def need_annotations(data: DataModule, stage: str, task: DenseTask) -> DenseTask:
    """The task, with the names of the classes and an example of the input; refuses data that cannot tell of places."""
    if stage not in task.stages:
        fits = " and ".join(f"stage={name}" for name in task.stages)
        raise UserError(f"task={type(task).__name__.lower()} works with {fits}, and this is stage={stage}")
    if task.reads not in data.annotated:
        raise UserError(
            f"stage={stage} needs {task.word_of}, and these {data.noun}s have none; choose data=voc or data=coco"
            + (", data=folder with data.masks=FOLDER" if task.word_of == "masks" else "") + ", or data=shapes"
        )  # fmt: skip
    data.read_labels(task.reads)
    task.prepare(data.classes, None)
    if len(task.names) < 1:
        raise UserError(f"the training {data.noun}s hold no {task.word_of}; check data.root")
    return task.seeing(data.padding_views(torch.device("cpu"))[0])


def described(task: DenseTask) -> str:
    """The head in words."""
    sizes = {key: getattr(task, key) for key in ("architecture", "width", "head_dim") if hasattr(task, key)}
    return ", ".join([type(task).__name__.lower(), *(f"{key} {value}" for key, value in sizes.items())])


def constant_answer(task: DenseTask, data: DataModule, rows: Tensor) -> dict[str, dict[str, float]]:
    """What the best constant answer scores: the most common class of the training pixels, everywhere."""
    if not task.chance:
        return {}
    names = len(task.names)
    counts = torch.zeros(names, dtype=torch.int64)
    for batch in data.each("train", rows):
        found = batch.labels.flatten().long()
        counts += torch.bincount(found[found < names], minlength=names)
    metrics = task.metrics()
    for batch in data.each("test"):
        metrics.update(*task.measurable(torch.full_like(batch.labels, int(counts.argmax())), batch.labels))
    value = float(metrics[task.main].compute())
    return {task.chance: {task.main: value}}
