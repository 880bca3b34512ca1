"""stage=finetune: the whole network on labels, however few, beside the same network trained from scratch."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ssl_lightning.core import progress
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import say
from ssl_lightning.data.labelled import Split
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.judge import metric_of
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import (
    Judged,
    MakeTrainer,
    Stopwatch,
    device_of,
    need_finite,
    report,
    same_items,
    speed,
    split_features,
)
from ssl_lightning.stages.judging import naive_baselines, need_labels
from ssl_lightning.stages.opening import tell_backbone, tell_items
from ssl_lightning.stages.trained import leave
from ssl_lightning.stages.training import LOOK_AT_MOST, LabelledData, labels_only, picking_split, told, train_and_test
from ssl_lightning.tasks.finetuner import Finetuner

SPLITS: tuple[Split, ...] = ("train", "test")
NAIVE = {"raw_pixels": "pixels", "naive": "naive features"}  # in words


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    seed: int,
    epochs: int = 60,
    batch_size: int = 64,
    base_lr: float = 4e-3,
    weight_decay: float = 0.05,
    layer_decay: float = 0.75,
    warmup_epochs: float = 5,
    mixup: float = 0.0,
    label_smoothing: float = 0.0,
    crop_scale: tuple[float, float] = (0.3, 1.0),
    picking: float = 0.2,
    probe_first: bool = True,
    task: Task | None = None,
    data_name: str = "",
) -> dict[str, Any]:
    """AdamW, warm-up and cosine; random crop and flip; the checkpoint picked on a split of the labels, tested once.

    Args:
        probe_first: the head begins as a linear probe on the frozen features, so that its first, blind gradients do not
            spoil them (Kumar et al. 2022, https://arxiv.org/abs/2202.10054). From scratch there is nothing to spoil.
        base_lr: of the head at a global batch of 256, as all rates here.
        layer_decay: of the pretrained network. From scratch all layers learn at the full rate: they all have to.
        picking: share of the labelled training images that is held out to pick the checkpoint; 0 takes the last one.
        task: what labels mean; None: classes.
        data_name: of the data, for the model's card.
    """
    watch = Stopwatch()
    same_items(judged, data)
    task = need_labels(data, "finetune", task)
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device_of(trainer))
    rows, held = picking_split(data, picking)
    if task.whole_items:
        check_whole(judged, data, task)
    views = data.whole_views() if task.whole_items else data.weak_views(crop_scale)
    labelled = partial(LabelledData, data, rows, held, views, batch_size)
    recipe = OptimizerRecipe(partial(AdamW, betas=(0.9, 0.999)), base_lr, weight_decay, WarmupCosine(warmup_epochs))

    left: dict[str, Any] = {}  # what is told of the probabilities

    def tuned(network: nn.Module, decay: float, name: str) -> Any:
        torch.manual_seed(seed)  # the same head in both
        module = Finetuner(network, task, recipe, decay, mixup, label_smoothing)
        if probe_first and name == "finetune":
            begin_with_probe(module, data, rows, device_of(trainer))
        tell = partial(leave, judged, data, task, run, data_name, left, module) if name == "finetune" else None
        return train_and_test(module, labelled(), trainer, run.path / name, epochs, seed, tell)

    pretrained = tuned(judged.backbone, layer_decay, "finetune")
    scratch = tuned(judged.random, 1.0, "from_scratch")
    mains = pretrained.scores[task.main], scratch.scores[task.main]
    naive = {} if task.whole_items else beside_naive(data, task)
    return report(
        judged, watch,
        **told(pretrained.scores, "finetune", task),
        **metric_of(task), **left,
        baselines={"from_scratch": told(scratch.scores, "finetune", task), **naive},
        verdict=verdict.against(*mains, len(data.test_set), task, "training from scratch", naive),
        labels=len(rows) + len(held),
        protocol={
            "finetune": f"whole network, AdamW, rate {base_lr:g} x batch / 256, weight decay {weight_decay:g}, layer "
            f"decay {layer_decay:g}, {epochs} epochs, warm-up and cosine, "
            f"{'whole items' if task.whole_items else 'crop and flip'}, mixup {mixup:g}, label smoothing "
            f"{label_smoothing:g}, {'probed' if probe_first and not task.whole_items else 'random'} head; "
            + (f"checkpoint picked on {len(held)} of the labels" if len(held) else "last checkpoint")
            + ", tested once",
            "from_scratch": "the same network, labels, seed and budget, random weights, layer decay 1",
            **({} if task.whole_items else beside_words(data)),
        },
        epochs=epochs,
        steps=pretrained.steps,
        **speed(data, (pretrained.images + scratch.images) / (pretrained.seconds + scratch.seconds or 1)),
    )  # fmt: skip


def check_whole(judged: Judged, data: DataModule, task: Task) -> None:
    """Say how many items no view holds whole, and refuse a network that cannot hold their targets."""
    rows = {split: data.labelled_indices(split) for split in SPLITS}
    some = {split: found[:: -(-len(found) // LOOK_AT_MOST)] for split, found in rows.items()}
    cut, fix = data.beyond_view(some)
    if cut:
        of = f"{sum(map(len, some.values()))} labelled {data.noun}s"
        say(f"{cut} of {of} do not fit into a view and are cut; to keep them whole, {fix}.")
    targets = {"training": data.targets("train", rows["train"]), "test": data.targets("test", rows["test"])}
    device = next(judged.backbone.parameters(), torch.empty(0)).device
    task.check_network(judged.backbone, data.padding_views(device)[0], targets, data.noun)


def begin_with_probe(module: Finetuner, data: DataModule, rows: Tensor, device: torch.device) -> None:
    """Set a linear head to a linear probe on the features of the rows (N,) that are trained on, and of no others."""
    if not isinstance(module.head, nn.Linear):
        return
    with progress.phase("features for the head's linear probe"):
        train = extract(module.backbone.to(device), data.eval_loader("train", rows), device)
    need_finite(("train", train), noun=data.noun)
    settings = ProbeSettings(batch_size=min(512, len(train)), seed=data.seed)
    probe = probe_grid(train.x, train.labels, train.x, train.labels, module.task.to("cpu"), settings)
    module.head.load_state_dict({"weight": probe.weight, "bias": probe.bias})


def beside_words(data: DataModule) -> dict[str, str]:
    """How the naive features are scored."""
    return {data.naive_name: f"linear probe on the {NAIVE.get(data.naive_name, data.naive_name)} with the same labels"}


def beside_naive(data: DataModule, task: Task) -> dict[str, dict[str, float]]:
    """What a linear probe makes of the naive features with the same labels, and the best constant answer."""
    readable = split_features(labels_only, data, torch.device("cpu"))
    return naive_baselines(data, task, *readable)
