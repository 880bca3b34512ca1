"""What stage=predict goes through, and what it counts on the way: little memory, however many files there are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core.task import CLASSES, TEXTS, Task, computed
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import counted, named, say
from ssl_lightning.data.everything import Everything, by_folder
from ssl_lightning.evaluation.calibration import Calibration
from ssl_lightning.evaluation.judge import TOP1, constant
from ssl_lightning.modalities.feeding import NoTransform
from ssl_lightning.modalities.predicting import LABEL, PATH, outputs_of, predicted, told
from ssl_lightning.reports.predicted import Mistakes
from ssl_lightning.runs import places
from ssl_lightning.runs.model import Model


@dataclass(frozen=True)
class Seen:
    """Some items, and what the model says of those that could be read.

    Attributes:
        start: the place of the first.
        names: of all (B,).
        good: (G,) places within the batch of those that could be read; `inputs`, `outputs` and `targets` are of these.
        targets: matched to the task; None where no labels are known.
        words: (B,) what the labels are called, "" for none; None where they are no words.
    """

    start: int
    names: list[str]
    good: list[int]
    inputs: Any
    outputs: Any
    targets: Any = None
    words: list[str] | None = None

    @property
    def least(self) -> int:
        """Columns of an item that could not be read."""
        return 1 if self.words is None else 2

    @property
    def broken(self) -> list[str]:
        good = {*self.good}
        return [name for i, name in enumerate(self.names) if i not in good]

    def rows(self, task: Task) -> list[dict[str, Any]]:
        """A row for each item, in order."""
        heads = [{PATH: name} for name in self.names]
        if self.words is not None:
            heads = [head | {LABEL: word} for head, word in zip(heads, self.words, strict=True)]
        found: list[dict[str, Any]] = [dict(head) for head in heads]
        for i, row in zip(self.good, told(task, self.outputs) if self.good else (), strict=True):
            found[i] |= row
        return found


class TestItems:
    """The items of the test set, by its loader: data that are no files, or of a modality without a transform."""

    __test__ = False  # no test of pytest's
    root = ""

    def __init__(self, data: DataModule, task: Task) -> None:
        self.data, self.items, self.names = data, data.test_set, data.label_names
        self.labelled = data.found_kind == task.reads

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, model: Model, device: torch.device) -> Iterator[Seen]:
        model.to(device)
        paths, seen = getattr(self.items, "paths", None), 0
        for batch in self.data.eval_loader("test", shared=False):
            indices = batch.indices.tolist()
            names = [str(paths[i]) if paths else f"test {i}" for i in indices]
            targets, words = None, None
            if self.labelled:
                targets = model.task.matched(self.names, batch.labels.cpu())
                words = _words(batch.labels, self.names, model.task)
            yield Seen(
                seen, names, [*range(len(names))], batch.views[0].to("cpu"), outputs_of(model, batch.views[0]), targets,
                words,
            )  # fmt: skip
            seen += len(names)
        self.data.teardown("predict")


class Files:
    """Every file under a folder."""

    def __init__(self, found: Everything, task: Task, batch_size: int) -> None:
        self.found, self.root, self.batch_size = found, found.root, batch_size
        targets, names = found.targets, found.target_names
        if targets is None and found.by_folder and task.reads == CLASSES:
            targets, names = by_folder(found.names, task.names)
            if not {*names} & {*task.names}:  # folders that are no classes
                targets = None
        self.targets, self.target_names = targets, names
        if targets is not None:
            _tell_unknown(task, names)

    def __len__(self) -> int:
        return len(self.found.names)

    def batches(self, model: Model, device: torch.device) -> Iterator[Seen]:
        for batch in predicted(model, model.transform, self.found.paths, self.batch_size, device):
            rows = slice(batch.start, batch.start + batch.count)
            targets, words = None, None
            if self.targets is not None:
                some = self.targets[rows]
                words = _words(some, self.target_names, model.task)
                targets = model.task.matched(self.target_names, some[batch.good])
            yield Seen(batch.start, self.found.names[rows], batch.good, batch.inputs, batch.outputs, targets, words)


def items_of(model: Model, data: DataModule) -> Files | TestItems:
    """What is predicted: the files of the data where the model can read files, else its test items."""
    found = data.everything()
    if found is None or isinstance(model.transform, NoTransform):
        return TestItems(data, model.task)
    return Files(found, model.task, data.batch_size)


def _words(targets: Tensor, names: tuple[str, ...] | list[str], task: Task) -> list[str] | None:
    if task.reads not in (CLASSES, TEXTS):
        return None
    return [names[i] if i >= 0 else "" for i in targets.tolist()]


def _tell_unknown(task: Task, names: tuple[str, ...]) -> None:
    """A line on labels that the model does not know, or that it would need."""
    if task.reads == TEXTS:
        return
    strange = [name for name in names if name not in {*task.names}]
    if strange:
        what = "classes" if task.reads == CLASSES else "labels"
        say(f"Left out of the figures, because the model does not know these {what}: {named(strange, 8)}.")
    missing = [name for name in task.names if name not in {*names}]
    if missing and task.reads != CLASSES:
        say(f"No metrics: these files have no label {named(missing, 8)}, which the model needs.")


def tell_of_known(ref: str, root: str) -> None:
    """A line where a model is asked for the very files that it learned from."""
    run = places.find_run(ref) if root else None
    data = places.config_of(run).get("data") if run else None
    theirs = data.get("root") if isinstance(data, dict) else None
    if isinstance(theirs, str) and os.path.realpath(Path(theirs).expanduser()) == os.path.realpath(root):
        say("This model learned from files of this folder: figures of these are too good.")


class Found:
    """The metrics of those that have labels, and what is left out.

    Attributes:
        broken: names of what could not be read.
        count: items with a label that the model knows.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.metrics = task, task.metrics()
        self.calibration, self.mistakes = Calibration(), Mistakes()
        self.broken, self.count, self.total = list[str](), 0, 0
        self.targets: list[Tensor] = []  # of numbers and several labels, for the best constant answer

    def add(self, batch: Seen) -> None:
        self.total += len(batch.names)
        self.broken += batch.broken
        if batch.targets is None or not batch.good:
            return
        task, rows = self.task.to("cpu"), self.task.known(batch.targets).nonzero().flatten()
        if not len(rows):
            return
        outputs, targets = batch.outputs[rows], batch.targets[rows]
        self.metrics.update(*task.measurable(outputs, targets))
        self.count += len(rows)
        if task.reads not in (CLASSES, TEXTS):
            self.targets.append(targets)
        shares = task.probabilities(outputs) if task.reads == CLASSES else None
        if shares is None:
            return
        said, sure = outputs.argmax(dim=1), shares.max(dim=1).values
        self.calibration.update(shares, targets, said)
        for i in (said != targets).nonzero().flatten().tolist():
            if self.mistakes.wanted(float(sure[i])):
                at = batch.good[int(rows[i])]
                row = int(rows[i])
                item = batch.inputs[row].clone() if isinstance(batch.inputs, Tensor) else batch.inputs[row : row + 1]
                pair = int(targets[i]), int(said[i])
                self.mistakes.add(float(sure[i]), batch.start + at, *pair, batch.names[at], item)

    @cached_property
    def scores(self) -> dict[str, Any]:
        """For results.json; empty without labels."""
        if not self.count:
            return {}
        found = computed(self.metrics)
        told_of: dict[str, Any] = {f"predict_{key}": value for key, value in ({self.task.main: 0.0} | found).items()}
        if self.calibration.count:
            told_of |= {"ece": self.calibration.ece, "brier": self.calibration.brier}
            told_of["per_class"] = self.calibration.by_class(list(self.task.names))
        return {**told_of, "baselines": self.baselines}

    @cached_property
    def baselines(self) -> dict[str, dict[str, float]]:
        """The best answer that is the same for all of these items."""
        if self.calibration.count and self.task.main == TOP1:
            items = Counter[int]()
            for (label, _), count in self.calibration.pairs.items():
                items[label] += count
            return {"majority_class": {"predict_top1": max(items.values()) / self.calibration.count}}
        if not self.targets:
            return {}
        targets = torch.cat(self.targets)
        found = next(iter(constant(targets, targets, self.task).values()), {})
        return {"constant": {f"predict_{key}": value for key, value in found.items()}} if found else {}

    def verdict(self, noun: str) -> str:
        """In a sentence or two."""
        if not self.count:
            return f"No metrics: these {noun}s have no label that the model knows."
        key = f"predict_{self.task.main}"
        score = self.scores[key]
        words = f"{self.task.word(score)} on {counted(self.count, f'labelled {noun}')}"
        for name, other in self.baselines.items():
            what = {
                "majority_class": "always saying the most frequent class",
                "constant": "always giving the same answer",
            }[name]
            words += f", against {self.task.word(other[key])} for {what}"
        return f"{words}."
