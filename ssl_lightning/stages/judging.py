"""The one way to a verdict: kNN and linear probe, and random weights and naive features under the same protocol."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core import ddp, progress
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.readouts import FEATURES, Readouts, columns
from ssl_lightning.core.task import CLASSES, Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import say
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import Features, evaluating, extract, module_of
from ssl_lightning.evaluation.judge import BOTH, KeepProbe, baselines, beside, judge, metric_of, quality, told
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.stages.common import (
    Embed,
    naive_features,
    need_finite,
    positive_pairs,
    split_features,
    split_random_features,
)
from ssl_lightning.stages.kept_features import Cache
from ssl_lightning.tasks.classify import Classify

FOUND = {
    "classes": "one of {count} classes",
    "several": "{count} labels",
    "numbers": "{count} numbers",
}


# ---- labels and task -----------------------------------------------------------------------------------------------


def need_labels(data: DataModule, stage: str, task: Task | None = None) -> Task:
    """The task, with the names and statistics of these labels; stops a stage that cannot do without them.

    Called before anything is computed, and best before any item is read. Raises UserError for data without labels, and
    for labels of another kind than the task takes.
    """
    task = task if task is not None else Classify()
    if task.stages and stage not in task.stages:
        raise UserError(
            f"{_named(task)} works with {_stages(task)} only, and this is stage={stage}; choose another task="
        )
    data.read_labels(task.reads)
    kind = data.found_kind
    if kind is not None and kind != task.reads:
        raise UserError(_other_kind(data, f"stage={stage} takes", task, kind))
    if not data.has_labels:
        fix = "use labelled data, or stage=embed, which needs no labels"
        raise UserError(f"data has no labels, and stage={stage} needs them: {fix}")
    return prepared(task, data)


def prepared(task: Task, data: DataModule) -> Task:
    """The task with what it needs of the labelled data."""
    targets = data.targets("train", data.labelled_indices("train"))
    task.prepare(data.label_names, targets)
    for split, found in (("training", targets), ("test", data.targets("test"))):
        task.check(found, split, data.noun)
    return task


def _named(task: Task) -> str:
    return f"task={type(task).__name__.lower()}"


def _stages(task: Task) -> str:
    return " and ".join(f"stage={name}" for name in task.stages)


def _other_kind(data: DataModule, who: str, task: Task, kind: str) -> str:
    names = data.probe_set.target_names
    if task.reads == CLASSES:
        one = "choose one with data.label_column=NAME, or use stage=embed, which writes them all"
        return f"{who} one label per {data.noun}, and the data has {len(names)}: add task=multilabel, {one}"
    has = FOUND[kind].format(count=len(names) or data.num_classes)
    fix = "leave task= out" if kind == CLASSES else "choose another task="
    table = "give a table of such labels with data.labels=FILE.csv"
    return f"{_named(task)} takes {task.takes} per {data.noun}, and the data has {has}: {fix}, or {table}"


# ---- the verdict ---------------------------------------------------------------------------------------------------


Keep = Callable[[Features | None, Features], None]  # is given the (train, test) features that were judged


class NotFinite(UserError):
    """Features that are no numbers."""


def verdict_on(
    embed: Embed,
    random_backbone: nn.Module,
    data: DataModule,
    task: Task,
    device: torch.device,
    k: int = 20,
    temperature: float = 0.07,
    probe: ProbeSettings | None = None,
    what: Sequence[str] = BOTH,
    naive_what: Sequence[str] = ("knn",),
    chunk: int | None = None,
    keep: Keep | None = None,
    keep_probe: KeepProbe | None = None,
    cache: Cache = None,
) -> tuple[dict[str, Any], Features, Features]:
    """What features are worth beside random weights and naive features: (for results.json, train, test features).

    Args:
        task: prepared.
        what, naive_what: of "knn" and "linear", for features and for naive ones.
        k, temperature, chunk: of the kNN.
        keep: is given the features, for the page.
        keep_probe: is given the linear probe of these features.
        cache: "auto": features come from the cache, and go there.

    Raises:
        NotFinite: the features are no numbers.
        UserError: the network does not have a readout of the probe.
    """
    reading, reading_random = (_reading(network, probe, data, device) for network in (embed, random_backbone))
    widths = reading.widths if isinstance(reading, Readouts) else None
    _say_what(data, what)
    train, test = split_features(reading, data, device, cache=cache)
    need_finite(("train", train), ("test", test), noun=data.noun, error=NotFinite)
    found = judge(train, test, task, k, temperature, probe, device, what, chunk, keep_probe, widths)
    random, naive = split_random_features(reading_random, data, device, cache), naive_features(data, train, test)
    given = (k, temperature, probe, device)
    others = baselines(random, naive, task, *given, data.naive_name, what, naive_what, chunk, widths)
    train, test = (_first(features, widths) for features in (train, test))
    protocol = found.pop("protocol")
    words = verdict.of({**found, "baselines": others}, test.x, lambda: naive[1], data.noun, task)
    if keep is not None:
        keep(train, test)
    found |= {**metric_of(task), "baselines": others, "protocol": protocol, "verdict": words}
    return found, train, test


def _reading(embed: Embed, probe: ProbeSettings | None, data: DataModule, device: torch.device) -> Any:
    """The network with the readouts that the probe asks for, its widths known; itself for its features alone."""
    if probe is None or tuple(probe.readouts) == (FEATURES,):
        return embed
    module = module_of(embed)
    assert module is embed, "other readouts are read of a network itself"
    found = Readouts(module, probe.readouts)
    with evaluating(found), torch.no_grad():
        found(data.padding_views(device)[0].to(device))
    return found


def _first(features: Features, widths: Mapping[str, int] | None) -> Features:
    """The features alone, or the first of the readouts."""
    if widths is None:
        return features
    places = columns(widths)
    return replace(features, x=features.x[:, places.get(FEATURES, next(iter(places.values())))])


def _say_what(data: DataModule, what: Sequence[str]) -> None:
    """The first line of an evaluation."""
    measured = " and ".join({"knn": "kNN", "linear": "linear probe"}[one] for one in what)
    items = f"{len(data.labelled_indices('train')):,} training and {len(data.test_set):,} test {data.noun}s"
    progress.say(f"evaluating: {measured} on {items}, and of baselines")


def naive_baselines(data: DataModule, task: Task, train: Features, test: Features) -> dict[str, Any]:
    """A linear probe on the naive features of these items, and the best constant answer."""
    naive = naive_features(data, train, test)
    settings = ProbeSettings(batch_size=min(512, len(train)), seed=data.seed)
    return beside((train, test), naive, task, settings, data.naive_name)


def judge_backbone(
    embed: Embed,
    random_backbone: nn.Module,
    data: DataModule,
    device: torch.device,
    k: int = 20,
    temperature: float = 0.07,
    probe: ProbeSettings | None = None,
    start: nn.Module | None = None,
    task: Task | None = None,
    keep: Keep | None = None,
) -> dict[str, Any]:
    """The whole verdict: kNN, linear probe, both baselines under the same protocol, quality, and a verdict in words.

    `start`, the weights that a training began with where these were no random ones, are a baseline, too. Without labels
    only `quality` and the verdict can be told, and of features that are not finite the verdict alone. Every rank calls
    this and gets the same: the verdict on rank 0's network, the one that is saved, for ranks may have trained with
    BatchNorm statistics of their own. `keep` is given the features, for the page.
    """
    module = module_of(embed)
    if module is not None:
        ddp.share_statistics(module)
    task, probe = task if task is not None else Classify(), probe or ProbeSettings(seed=data.seed)
    data.read_labels(task.reads)
    pairs = positive_pairs(embed, data, device)
    if task.stages:
        say(f"No kNN and no linear probe: {_named(task)} works with {_stages(task)} only.")
        return _without_labels(embed, data, device, pairs, keep)
    kind = data.found_kind
    if kind is not None and kind != task.reads:
        say(f"No kNN and no linear probe: {_other_kind(data, 'they take', task, kind)}.")
    if not data.has_labels or kind != task.reads:
        return _without_labels(embed, data, device, pairs, keep)
    try:
        prepared(task, data)
    except UserError as error:  # labels that nothing can be learned from do not end a training that needed none
        say(f"No kNN and no linear probe: {error}.")
        return _without_labels(embed, data, device, pairs, keep)
    try:
        found, _, test = verdict_on(embed, random_backbone, data, task, device, k, temperature, probe, keep=keep)
    except NotFinite as error:
        return {"verdict": str(error)}
    if start is not None:
        features = split_features(start, data, device, "the weights it began with")
        begun = judge(*features, task, k, temperature, probe, device)
        found["baselines"]["start"] = told(begun, task)
    return {**found, "quality": quality(test, pairs, data.seed)}


def _without_labels(
    embed: Embed,
    data: DataModule,
    device: torch.device,
    pairs: tuple[Tensor, Tensor] | None,
    keep: Keep | None = None,
) -> dict[str, Any]:
    progress.say(f"evaluating: features of {len(data.test_set):,} test {data.noun}s, without labels")
    with progress.phase("features"):
        alone = extract(embed, data.eval_loader("test"), device)
    if bad := verdict.not_finite(alone.x, "test", data.noun):
        return {"verdict": bad}
    words = verdict.of({}, alone.x, lambda: data.naive_features("test", alone.indices), data.noun)
    if keep is not None:
        keep(None, alone)
    return {"quality": quality(alone, pairs, data.seed), "verdict": words}
