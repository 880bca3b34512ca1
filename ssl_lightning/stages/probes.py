"""`stage.probes`: the same features asked for something else, such as who speaks beside which digit is said."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import CLASSES, Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.stages.common import Judged, same_items
from ssl_lightning.stages.judging import need_labels

Probes = Mapping[str, Mapping[str, Any]]  # {name: what of the data is another, {"labels": "*_{label}_*"}}
OtherData = Callable[[Mapping[str, Any]], DataModule]  # the run's data with these keys changed
NOT_KEPT = ("verdict", "protocol", "labels")  # of what a probe found: the stage's own say the same


def data_of(
    probes: Probes | None, other_data: OtherData | None, judged: Judged, stage: str, task: Task
) -> dict[str, tuple[DataModule, Task]]:
    """The data of each probe and the stage's task on it, before anything is computed. Each has a split of its own.

    Raises UserError, with the probe's name, for data that cannot be read or have no labels.
    """
    found = {}
    for name, changes in (probes or {}).items():
        assert other_data is not None
        try:
            data = other_data(changes)
            same_items(judged, data)
            found[name] = data, need_labels(data, stage, copy.deepcopy(task))
        except UserError as error:
            raise UserError(f"stage.probes.{name}: {error}") from error
    return found


def measured(
    probes: Mapping[str, tuple[DataModule, Task]], measure: Callable[[DataModule, Task], dict[str, Any]]
) -> dict[str, Any]:
    """{"probes": {name: what `measure` finds on its data}}; {} without probes."""
    kept = {}
    for name, (data, task) in probes.items():
        found = {key: value for key, value in measure(data, task).items() if key not in NOT_KEPT}
        kept[name] = found | ({"classes": data.num_classes} if task.reads == CLASSES else {})
    return {"probes": kept} if kept else {}
