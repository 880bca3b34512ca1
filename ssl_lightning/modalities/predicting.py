"""What a model says of files, images or recordings: read, fed, and told with names, a batch at a time.

`stage=predict`, `ssl_lightning.predict` and `model.predict` all go through `predicted`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch
from torch import Tensor, nn

from ssl_lightning.core import files
from ssl_lightning.core.cells import cell
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import CLASSES, Task
from ssl_lightning.data.broken import counted, named, say
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.modalities.feeding import chosen, read_ahead, transform_of
from ssl_lightning.runs.model import Model, restored_model

if TYPE_CHECKING:
    import numpy as np

PATH, LABEL = "path", "label"  # columns; a class of such a name is told as `class_path`
OF_CLASSES = (PATH, LABEL, "class", "probability")


@dataclass(frozen=True)
class Batch:
    """What a model says of some items, in their order.

    Attributes:
        start: the place of the first of them.
        good: (G,) places within the batch of those that could be read.
        inputs: (G, ...) as the network was given them.
        outputs: of these G, on the CPU; None where there is none.
        errors: {place within the batch: why it could not be read}.
        count: B, of all.
    """

    start: int
    good: list[int]
    inputs: Tensor | None
    outputs: Any
    errors: dict[int, str]
    count: int


def predicted(
    model: Model, transform: Any, items: Sequence[Any], batch_size: int = 64, device: torch.device | str | None = None
) -> Iterator[Batch]:
    """The outputs for items, in evaluation mode and without gradient. A file that cannot be read is no error here.

    Args:
        items: what the transform takes: paths, images.
        device: to compute on, where the model is moved for this; None: where it is.

    Raises:
        UserError: an item that is no file and cannot be read.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} is not a number of items; give 1 or more")
    like = next(model.parameters(), torch.empty(0))
    place = like.device if device is None else torch.device(device)
    try:
        model.to(place)
        start = 0
        for jobs in read_ahead(transform, items, batch_size, "predicting"):
            inputs, good, errors = list[Tensor](), list[int](), dict[int, str]()
            for i, job in enumerate(jobs):
                try:
                    inputs.append(job.result())
                    good.append(i)
                except UserError as error:
                    if not isinstance(items[start + i], str | os.PathLike):
                        raise
                    errors[i] = str(error)
            x = torch.stack(inputs) if inputs else None
            yield Batch(start, good, x, None if x is None else outputs_of(model, x.to(like.dtype)), errors, len(jobs))
            start += len(jobs)
    finally:
        model.to(like.device)


def outputs_of(model: nn.Module, x: Any) -> Any:
    """The outputs for a batch of inputs, on the CPU, in float32."""
    place = next(model.parameters(), torch.empty(0)).device
    with evaluating(model), torch.no_grad():
        outputs = model(x.to(place))
    return outputs.float().cpu() if isinstance(outputs, Tensor) else outputs.to("cpu")


def told(task: Task, outputs: Any) -> list[dict[str, Any]]:
    """What the outputs of items mean, a mapping each: the task's words, and the probability of each class."""
    shares = task.probabilities(outputs) if task.reads == CLASSES else None
    rows = [{_column(key, (PATH, LABEL)): value for key, value in row.items()} for row in task.predict(outputs)]
    if shares is None:
        return rows
    names = [_column(name, OF_CLASSES) for name in task.names]
    return [row | dict(zip(names, each, strict=True)) for row, each in zip(rows, shares.tolist(), strict=True)]


def _column(name: str, taken: Sequence[str]) -> str:
    return f"class_{name}" if name in taken else name


class Rows:
    """Writes predictions as a table, row by row; one of a file that could not be read has its path alone."""

    def __init__(self, file: TextIO) -> None:
        self.table, self.columns = csv.writer(file, lineterminator="\n"), list[str]()
        self.waiting: list[Mapping[str, Any]] = []  # rows before the first that tells the columns

    def add(self, row: Mapping[str, Any], whole: bool = True) -> None:
        """A row, `path` first; `whole`: it has all columns."""
        if not self.columns and not whole:
            self.waiting.append(row)
            return
        if not self.columns:
            self._begin(list(row))
        self.table.writerow([_written(row.get(column, "")) for column in self.columns])

    def end(self) -> None:
        """Writes what waits, where no row told the columns."""
        if not self.columns:
            self._begin([PATH])

    def _begin(self, columns: list[str]) -> None:
        self.columns = columns
        self.table.writerow([cell(column) for column in columns])
        waiting, self.waiting = self.waiting, []
        for row in waiting:
            self.add(row)


def _written(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else cell(value)


# ---- from Python -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of N items.

    Attributes:
        rows: a mapping for each item: its `path` (or place, where it is no file), the `class` and its `probability`;
            of several labels the probability of each, of numbers the numbers, of texts the `text`. A file that cannot
            be read has `error` in their place.
        classes: the names (K,), in the order of `probabilities`.
        probabilities: float64 (N, K), NaN in the rows of files that cannot be read; None where the task has none.
    """

    rows: list[dict[str, Any]]
    classes: list[str]
    probabilities: np.ndarray[Any, Any] | None
    _told: list[dict[str, Any]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        bad = sum("error" in row for row in self.rows)
        return f"Predictions: {counted(len(self), 'item')}" + (f", {bad} of them cannot be read" if bad else "")

    def to_csv(self, path: str | Path) -> Path:
        """Write the table that `stage=predict` writes: path, class, probability, and the probability of each class.

        Raises:
            UserError: the file cannot be written.
        """
        path = Path(path).expanduser()
        try:
            with files.atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
                table = Rows(file)
                for row in self._told:
                    table.add(row, len(row) > 1)
                table.end()
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; give another path") from error
        return path


def predictions(
    model: Model, items: Any, batch_size: int = 64, device: str | torch.device | None = None
) -> Predictions:
    """What a model says of a file, a folder, or a list of what its `.transform` takes."""
    import numpy as np

    found = chosen(model.transform, items, "predict")
    rows, table, shares = list[dict[str, Any]](), list[dict[str, Any]](), list[np.ndarray[Any, Any]]()
    some, broken = False, list[str]()
    for batch in predicted(model, model.transform, found, batch_size, device):
        names = [_name(item, batch.start + i) for i, item in enumerate(found[batch.start : batch.start + batch.count])]
        each = [{PATH: name, "error": batch.errors[i]} if i in batch.errors else {} for i, name in enumerate(names)]
        wide: list[dict[str, Any]] = [{PATH: name} for name in names]
        share = np.full((batch.count, len(model.classes)), np.nan)
        if batch.outputs is not None:
            probabilities = model.task.probabilities(batch.outputs)
            short, full = model.task.predict(batch.outputs), told(model.task, batch.outputs)
            for i, row, columns in zip(batch.good, short, full, strict=True):
                each[i] = {PATH: names[i], **{_column(key, (PATH,)): value for key, value in row.items()}}
                wide[i] |= columns
            if probabilities is not None:
                share[batch.good], some = probabilities.numpy(), True
        broken += [str(names[i]) for i in batch.errors]
        rows += each
        table += wide
        shares.append(share)
    if broken:
        tell_broken(broken)
    return Predictions(rows, model.classes, np.concatenate(shares) if some else None, table)


def tell_broken(paths: Sequence[str]) -> None:
    """One line on the files that could not be read."""
    say(f"{counted(len(paths), 'file')} cannot be read and {'gets' if len(paths) == 1 else 'get'} no prediction: "
        f"{named(paths)}.")  # fmt: skip


def _name(item: Any, place: int) -> str | int:
    return os.fspath(item) if isinstance(item, str | os.PathLike) else place


class Predict:
    """`model.predict(items)`: what the model says of each item, in order, a mapping with `path` each."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(
        self, items: Any, batch_size: int = 64, device: str | torch.device | None = None
    ) -> list[dict[str, Any]]:
        """See `Predictions.rows`.

        Args:
            items: a file; a folder, of which every file is taken at any depth; or a list of what `.transform` takes.
            batch_size: items at a time.
            device: to compute on, where the model is moved for this call; None: where it is.
        """
        return predictions(self.model, items, batch_size, device).rows


def ready(model: Model) -> Model:
    """The model with its `.transform` and `.predict`, plain attributes."""
    model.transform, model.predict = transform_of(model.card), Predict(model)
    return model


def load(ref: str | Path, trusted: Sequence[str] = ()) -> Model:
    """The model of a reference, ready to be fed."""
    return ready(restored_model(ref, trusted))
