"""stage=predict: what a model that was trained on labels says of every file of a folder, and how right it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_lightning.core import files, progress
from ssl_lightning.core.distributed import barrier, is_main
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import counted
from ssl_lightning.evaluation.judge import metric_of
from ssl_lightning.modalities import predicting
from ssl_lightning.modalities.predicting import Rows
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import Judged, MakeTrainer, Stopwatch, device_of, report, same_items, speed
from ssl_lightning.stages.opening import tell_backbone
from ssl_lightning.stages.predicted import Found, items_of, tell_of_known
from ssl_lightning.stages.trained import KeepPage

FILE = "predictions.csv"


def run(judged: Judged, data: DataModule, trainer: MakeTrainer, run: RunFolder) -> dict[str, Any]:
    """Writes `predictions.csv`, a row for each file: its path, the class, its probability, and that of each class.

    Of data without files the test items are predicted. Labels are matched to the model's classes by name. Where there
    are some, results.json has the task's metrics and the best constant answer, and the page the confusions, the
    reliability and the most confident mistakes. Under several ranks each predicts everything, and rank 0 writes.
    """
    watch, device = Stopwatch(), device_of(trainer)
    model = predicting.load(judged.ref, judged.trusted)
    same_items(judged, data)
    data.read_labels(model.task.reads)
    tell_backbone(model.backbone, judged.method)
    items = items_of(model, data)
    tell_of_known(judged.ref, items.root)
    progress.say(f"predicting: {counted(len(items), data.noun)} in {items.root or 'the test set'}")
    found = Found(model.task)
    with table(run.path / FILE) as rows, progress.phase("predictions"):
        for batch in items.batches(model, device):
            found.add(batch)
            for row in batch.rows(model.task):
                rows.add(row, len(row) > batch.least)
    if found.broken:
        predicting.tell_broken(found.broken)
    if found.calibration.count and is_main():
        KeepPage(run, data, model.backbone)(model.task, found.calibration, found.mistakes, of_the_test_set=False)
    barrier()
    return report(
        judged, watch,
        predicted=len(items) - len(found.broken),
        unreadable=len(found.broken),
        labelled=found.count,
        files=[str(run.path / FILE)],
        **found.scores,
        **metric_of(model.task),
        verdict=found.verdict(data.noun),
        protocol={"predict": "evaluation view, evaluation mode, float32; labels matched by name"},
        **speed(data, len(items) / (watch.seconds or 1)),
    )  # fmt: skip


@contextmanager
def table(path: Path) -> Iterator[Rows]:
    """The table, whole at the end of the block, absent after an error; nowhere but on rank 0."""
    if not is_main():
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            yield Rows(nowhere)
        return
    with files.atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = Rows(file)
        yield rows
        rows.end()
