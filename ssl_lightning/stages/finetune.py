"""stage=finetune: the whole network on labels, however few, beside the same network trained from scratch."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ssl_lightning.core import progress
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import say
from ssl_lightning.data.labelled import Split
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.judge import calibrate_batchnorm, metric_of
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import (
    Judged,
    MakeTrainer,
    Stopwatch,
    calibration_batches,
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
from ssl_lightning.stages.training import (
    LOOK_AT_MOST,
    LabelledData,
    Trained,
    labels_only,
    picking_split,
    train_and_test,
)
from ssl_lightning.tasks.finetuner import Finetuner
from ssl_lightning.tasks.freezing import batch_norms

SPLITS: tuple[Split, ...] = ("train", "test")
NAIVE = {"raw_pixels": "pixels", "naive": "naive features"}  # in words
Training = Literal["finetune", "from_scratch"]
Norm = Literal["keep", "recalibrate", "fresh"]
LEARNS = {"all": "whole network", "head": "head alone"}
NORMS = {"keep": "pretraining's and kept", "recalibrate": "measured anew on training items and kept"}
SCRATCH = "the same network, labels, seed and budget, random weights, all of it trained at one rate"


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
    cutmix: float = 0.0,
    drop_path: float = 0.0,
    average: float = 0.0,
    patience: int | None = None,
    train: int | Literal["all", "head"] = "all",
    norm: Norm = "fresh",
    class_weights: Literal["none", "balanced"] = "none",
    trainings: tuple[Training, ...] = ("finetune", "from_scratch"),
    naive: bool = True,
) -> dict[str, Any]:
    """AdamW, warm-up and cosine; random crop and flip; the checkpoint picked on a split of the labels, tested once.

    Args:
        probe_first: the head begins as a linear probe on the frozen features, so that its first, blind gradients do not
            spoil them (Kumar et al. 2022, https://arxiv.org/abs/2202.10054). From scratch there is nothing to spoil.
        base_lr: of the head at a global batch of 256, as all rates here.
        layer_decay: of the pretrained network. From scratch all layers learn at the full rate: they all have to.
        mixup, cutmix: alpha of the share's Beta distribution; 0: none. With both each batch has one of the two.
        picking: share of the labelled training images that is held out to pick the checkpoint; 0 takes the last one.
        task: what labels mean; None: classes.
        data_name: of the data, for the model's card.
        drop_path: rate of stochastic depth in the last block, rising from 0 in the first.
        average: decay of the moving average of the weights, which is then what is picked and tested; 0: none.
        patience: epochs without a better look at the picking split after which a training ends; null: none.
        train: what of the pretrained network learns: all of it, its last blocks (a number), or the head alone.
        norm: BatchNorm's statistics in the pretrained network: `keep` pretraining's, `recalibrate` them on training
            items and keep those, or `fresh`, those of each batch, of which a moving average replaces pretraining's.
        class_weights: `balanced` lets each class count alike in the loss, of several labels having one and not.
        trainings: which are done.
        naive: whether a linear probe on naive features is measured beside them.
    """
    watch, device = Stopwatch(), device_of(trainer)
    check_asked(picking, patience, train, drop_path, trainings)
    same_items(judged, data)
    task = need_labels(data, "finetune", task)
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device)
    rows, held = picking_split(data, picking)
    if task.whole_items:
        check_whole(judged, data, task)
    views = data.whole_views() if task.whole_items else data.weak_views(crop_scale)
    labelled = partial(LabelledData, data, rows, held, views, batch_size)
    recipe = OptimizerRecipe(partial(AdamW, betas=(0.9, 0.999)), base_lr, weight_decay, WarmupCosine(warmup_epochs))
    weights = weights_of(task, data.targets("train", rows)) if class_weights == "balanced" else None
    tuner = partial(Finetuner, task=task, optimizer=recipe, mixup=mixup, cutmix=cutmix, drop_path=drop_path, seed=seed)
    tuner = partial(tuner, label_smoothing=label_smoothing, class_weights=weights)

    left: dict[str, Any] = {}  # what is told of the probabilities

    def pretrained() -> Finetuner:
        if norm != "fresh":
            check_norms(judged.backbone, norm)
        if norm == "recalibrate":
            with progress.phase("statistics of BatchNorm"):
                batches = (batch.to(device) for batch in calibration_batches(data))
                calibrate_batchnorm(judged.backbone.to(device), batches)
        last = {"all": None, "head": 0}.get(str(train), train)
        torch.manual_seed(seed)  # the same head in both
        module = tuner(judged.backbone, layer_decay=layer_decay, last_blocks=last, keep_norms=norm != "fresh")
        if probe_first:
            begin_with_probe(module, data, rows, device)
        return module

    def scratch() -> Finetuner:
        torch.manual_seed(seed)
        return tuner(judged.random)

    found: dict[str, Trained] = {}
    for name, made in (("finetune", pretrained), ("from_scratch", scratch)):
        if name in trainings:
            module = made()
            tell = partial(leave, judged, data, task, run, data_name, left, module) if name == "finetune" else None
            given = epochs, seed, tell, average, patience
            found[name] = train_and_test(module, labelled(), trainer, run.path / name, *given)
    first = next(iter(found.values()))
    beside = beside_naive(data, task) if naive and not task.whole_items else {}
    protocol = dict.fromkeys(found, SCRATCH) | (beside_words(data) if beside else {})
    head = "probed" if probe_first and not task.whole_items else "random"
    how = (
        f"{LEARNS.get(str(train), f'last {train} blocks and head')}, AdamW, rate {base_lr:g} x batch / 256, weight "
        f"decay {weight_decay:g}, layer decay {layer_decay:g}, {epochs} epochs, warm-up and cosine, "
        f"{'whole items' if task.whole_items else 'crop and flip'}, mixup {mixup:g}, label smoothing "
        f"{label_smoothing:g}, {head} head{also(cutmix, drop_path, average, patience, norm, class_weights)}; "
        f"{f'checkpoint picked on {len(held)} of the labels' if len(held) else 'last checkpoint'}, tested once"
    )
    return report(
        judged, watch,
        **results_of(found, task, data, beside), **left,
        labels=len(rows) + len(held),
        protocol=protocol | ({"finetune": how} if "finetune" in found else {}),
        epochs=first.epochs,
        steps=first.steps,
        **speed(data, sum(t.images for t in found.values()) / (sum(t.seconds for t in found.values()) or 1)),
    )  # fmt: skip


def check_asked(
    picking: float, patience: int | None, train: int | str, drop_path: float, trainings: Sequence[Training]
) -> None:
    """Raise a UserError for options of which one makes no sense beside another."""
    if not trainings:
        raise UserError("stage.trainings=[] trains nothing; name finetune, from_scratch or both")
    if patience is not None and not picking:
        raise UserError("stage.patience looks at the picking split, and stage.picking=0 holds none out; change one")
    if drop_path and train == "head":
        raise UserError("stage.drop_path drops paths of what learns, and stage.train=head lets none; leave one out")


def check_norms(backbone: nn.Module, norm: Norm) -> None:
    """Raise a UserError for a network without statistics."""
    if not batch_norms(backbone):
        name = type(backbone).__name__
        raise UserError(f"stage.norm={norm}: {name} has no BatchNorm, so no statistics to keep; leave it out")


def weights_of(task: Task, targets: Any) -> Tensor:
    """What classes count for. Raises UserError for a task that has none."""
    found = task.weights(targets)
    if found is None:
        name = type(task).__name__.lower()
        raise UserError(f"stage.class_weights=balanced is of classes, and task={name} has none; leave it out")
    return found


def also(cutmix: float, drop_path: float, average: float, patience: int | None, norm: Norm, class_weights: str) -> str:
    """The options that are in use, in words."""
    found = {
        f"cutmix {cutmix:g}": cutmix,
        f"drop path {drop_path:g}": drop_path,
        f"moving average of the weights {average:g}": average,
        f"ended after {patience} epochs without a better look": patience,
        f"BatchNorm's statistics {NORMS.get(norm)}": norm in NORMS,
        "classes weighted alike": class_weights == "balanced",
    }
    return "".join(f", {words}" for words, on in found.items() if on)


def results_of(found: Mapping[str, Trained], task: Task, data: DataModule, beside: Mapping[str, Any]) -> dict[str, Any]:
    """Figures, baselines and verdict, as far as they were trained."""
    mine, scratch = found.get("finetune"), found.get("from_scratch")
    others = {"from_scratch": named(scratch.scores), **beside} if scratch else dict(beside)
    results = {**(named(mine.scores) if mine else {}), **metric_of(task), "baselines": others}
    if mine and mine.per_class:
        results["per_class"] = mine.per_class
    if mine and scratch:
        mains = mine.scores[task.main], scratch.scores[task.main]
        results["verdict"] = verdict.against(*mains, len(data.test_set), task, "training from scratch", beside)
    return results


def named(scores: Mapping[str, float]) -> dict[str, float]:
    """Metrics as keys of results.json."""
    return {f"finetune_{name}": value for name, value in scores.items()}


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
