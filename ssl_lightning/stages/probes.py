"""`stage.probes`: the same features asked for something else, such as who speaks beside which digit is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.base import DataModule
from ssl_lightning.stages.common import Judged, need_labels, same_items

Probes = Mapping[str, Mapping[str, Any]]  # {name: what of the data is another, {"labels": "*_{label}_*"}}
OtherData = Callable[[Mapping[str, Any]], DataModule]  # the run's data with these keys changed
NOT_KEPT = ("verdict", "protocol", "labels")  # of what a probe found: the stage's own say the same


def data_of(probes: Probes | None, other_data: OtherData | None, judged: Judged, stage: str) -> dict[str, DataModule]:
    """The data of each probe, before anything is computed. Each has a split of its own.

    Raises UserError, with the probe's name, for data that cannot be read or have no labels.
    """
    found = {}
    for name, changes in (probes or {}).items():
        assert other_data is not None
        try:
            data = found[name] = other_data(changes)
            same_items(judged, data)
            need_labels(data, stage)
        except UserError as error:
            raise UserError(f"stage.probes.{name}: {error}") from error
    return found


def measured(probes: Mapping[str, DataModule], measure: Callable[[DataModule], dict[str, Any]]) -> dict[str, Any]:
    """{"probes": {name: what `measure` finds on its data}}; {} without probes."""
    found = {name: (measure(data), data.num_classes) for name, data in probes.items()}
    kept = {
        name: {key: value for key, value in one.items() if key not in NOT_KEPT} | {"classes": classes}
        for name, (one, classes) in found.items()
    }
    return {"probes": kept} if kept else {}
