"""stage=transfer: kNN and linear probe of one backbone on a list of data sets, in one table and one figure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.files import atomic, write_atomic
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.reports.measured import as_csv
from ssl_lightning.reports.pages import quietly
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import Judged, MakeTrainer, Stopwatch, device_of, report, same_items
from ssl_lightning.stages.judging import need_labels, verdict_on
from ssl_lightning.stages.kept_features import Cache
from ssl_lightning.stages.opening import tell_backbone, tell_items
from ssl_lightning.stages.transferred import bars, row_of, settled, words

Sets = Mapping[str, Mapping[str, Any]]
NamedData = Callable[[str, Mapping[str, Any]], DataModule]  # the data set of this name or folder, with these keys


def run(
    judged: Judged,
    trainer: MakeTrainer,
    run: RunFolder,
    seed: int,
    named_data: NamedData | None = None,
    named_task: Callable[[str], Task] | None = None,
    sets: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    k: int = 20,
    temperature: float = 0.07,
    probe: ProbeSettings | None = None,
    cache: Cache = "auto",
) -> dict[str, Any]:
    """Writes `transfer.csv` and `transfer.png`: a row for each data set, with random weights and naive features.

    All data sets are looked at before anything is computed. Each keeps the size and normalisation of the network.

    Args:
        named_data: makes a data set.
        named_task: makes a task.
        sets: names of data sets, folders or .npz files; or {name: keys of the data, such as root}, where `data` names
            the data set and `task` what its labels mean.
        k, temperature: of the kNN.
        probe: the grid of the linear probe.
        cache: features are kept in the cache folder, and taken from there; None: computed anew.
    """
    watch, device = Stopwatch(), device_of(trainer)
    assert named_data is not None
    assert named_task is not None
    there = {}
    for name, (which, keys, task_name) in settled(sets).items():
        try:
            data = named_data(which, keys)
            same_items(judged, data)
            there[name] = data, need_labels(data, "transfer", named_task(task_name))
        except UserError as error:
            raise UserError(f"stage.sets, {name}: {error}") from error
    tell_backbone(judged.backbone, judged.method)
    backbone, random = judged.backbone.to(device), judged.random.to(device)

    rows = list[dict[str, Any]]()
    for name, (data, task) in there.items():
        progress.say(f"data set {len(rows) + 1} of {len(there)}: {name}")
        tell_items(data, device)
        settings = probe or ProbeSettings(seed=seed)
        found = verdict_on(backbone, random, data, task, device, k, temperature, settings, cache=cache)[0]
        rows.append(row_of(name, data, task, found))
    files = [run.path / "transfer.csv", run.path / "transfer.png"]
    if is_main():
        write_atomic(files[0], as_csv(rows))
        with quietly("transfer.png"), atomic(files[1]) as temporary:
            bars(rows, temporary)
    return report(
        judged, watch, data=", ".join(there), rows=rows, verdict=words(rows),
        files=[str(file) for file in files if file.is_file() or not is_main()],
    )  # fmt: skip
