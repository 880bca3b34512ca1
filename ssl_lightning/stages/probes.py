"""`stage.probes`: the same features asked for something else, such as who speaks beside which digit is said."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import CLASSES, Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.stages.common import Embed
from ssl_lightning.stages.judging import NotFinite, need_labels, verdict_on

Probes = Mapping[str, Mapping[str, Any]]  # {name: what of the data is another, {"labels": "*_{label}_*"}}
OtherData = Callable[[Mapping[str, Any]], DataModule]  # the run's data with these keys changed
NOT_KEPT = ("verdict", "protocol", "labels", "metric")  # of what a probe found: the stage's own say the same


def data_of(
    probes: Probes | None,
    other_data: OtherData | None,
    same: Callable[[DataModule], None],
    stage: str,
    task: Task,
) -> dict[str, tuple[DataModule, Task]]:
    """The data of each probe and the stage's task on it, before anything is computed. Each has a split of its own.

    `same`: feeds data to the network as those of the stage, and refuses what it cannot take. Raises UserError, with the
    probe's name, for data that cannot be read or have no labels.
    """
    found = {}
    for name, changes in (probes or {}).items():
        assert other_data is not None
        try:
            data = other_data(changes)
            same(data)
            found[name] = data, need_labels(data, stage, copy.deepcopy(task))
        except UserError as error:
            raise UserError(f"stage.probes.{name}: {error}") from error
    return found


def on_features(
    embed: Embed,
    random_backbone: nn.Module,
    probes: Mapping[str, tuple[DataModule, Task]],
    device: torch.device,
    k: int,
    temperature: float,
) -> dict[str, Any]:
    """`measured` by kNN and linear probe, with their baselines; {} where the features are no numbers."""

    def measure(data: DataModule, task: Task) -> dict[str, Any]:
        settings = ProbeSettings(seed=data.seed)
        return verdict_on(embed, random_backbone, data, task, device, k, temperature, settings)[0]

    try:
        return measured(probes, measure)
    except NotFinite:  # the verdict says so
        return {}


def measured(
    probes: Mapping[str, tuple[DataModule, Task]], measure: Callable[[DataModule, Task], dict[str, Any]]
) -> dict[str, Any]:
    """{"probes": {name: what `measure` finds on its data}}; {} without probes."""
    kept = {}
    for name, (data, task) in probes.items():
        found = {key: value for key, value in measure(data, task).items() if key not in NOT_KEPT}
        kept[name] = found | ({"classes": data.num_classes} if task.reads == CLASSES else {})
    return {"probes": kept} if kept else {}
