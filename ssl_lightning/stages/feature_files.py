"""The files of `stage=embed`: features with the path, label and split of each item, written a part at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from ssl_lightning.core.cells import cell
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.items import ItemSet
from ssl_lightning.evaluation.features import Features

TABLE = ("path", "index", "label", "class", "split")  # columns of a csv before the targets and the features


class FeatureFile(Protocol):
    """A file that parts are added to, in order; `finish` writes what is left, `close` lets go after an error."""

    def add(self, features: Features, source: ItemSet, split: str) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class NpzFile:
    """Plain arrays only, so that `np.load` needs no pickle. All parts are kept until the end."""

    def __init__(self, path: Path) -> None:
        self.path, self.parts = path, dict[str, list[np.ndarray]]()
        self.names: dict[str, np.ndarray] = {}  # of classes and targets

    def add(self, features: Features, source: ItemSet, split: str) -> None:
        rows = features.indices
        self.names["classes"] = np.array(source.classes, dtype=np.str_)
        part: dict[str, np.ndarray] = {
            "features": features.x.numpy(),
            "labels": source.labels[rows].numpy(),
            "indices": rows.numpy(),
            "split": np.full(len(rows), split),
        }
        if source.paths is not None:
            part["paths"] = np.array([source.paths[i] for i in rows.tolist()], dtype=np.str_)
        if source.targets is not None:
            part["targets"] = source.targets[rows].numpy()
            self.names["target_names"] = np.array(source.target_names, dtype=np.str_)
        for key, values in part.items():
            self.parts.setdefault(key, []).append(values)

    def finish(self) -> None:
        arrays: dict[str, Any] = {key: np.concatenate(values) for key, values in self.parts.items()} | self.names
        with open(self.path, "wb") as file:  # given a name, numpy would append .npz to it
            np.savez(file, **arrays)

    def close(self) -> None:
        self.parts.clear()


class ParquetFile:
    """One row per item, one row group per part: no more than a part is in memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.writer = path, None

    def add(self, features: Features, source: ItemSet, split: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        labels, rows = source.labels[features.indices].tolist(), features.indices.tolist()
        names = classes_of(labels, source)
        flat = pa.array(features.x.flatten().numpy())
        columns = {
            "index": pa.array(rows, pa.int64()),
            "label": pa.array(labels, pa.int64()),
            "class": pa.array(names, pa.string()),
            "path": pa.array([source.paths[i] for i in rows] if source.paths else [None] * len(rows), pa.string()),
            "split": pa.array([split] * len(rows), pa.string()),
            "features": pa.FixedSizeListArray.from_arrays(flat, features.x.shape[1]),
        }
        if source.targets is not None:
            titles = titles_of(source, columns)
            columns |= {name: pa.array(source.targets[rows, i].tolist()) for i, name in enumerate(titles)}
        table = pa.table(columns)
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table)  # type: ignore[attr-defined]

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class CsvFile:
    """One row per item, written as parts come: path, index, label, class, split, targets, f0 ... f<D-1>.

    Nine digits, from which a float32 is read back to the bit. No text is one that a spreadsheet takes for a formula.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: IO[str] | None = None

    def add(self, features: Features, source: ItemSet, split: str) -> None:
        if self.file is None:
            self.file = open(self.path, "w", newline="", encoding="utf-8")  # noqa: SIM115  # `close` closes it
            numbers = [f"f{i}" for i in range(features.x.shape[1])]
            head = [*TABLE, *map(cell, titles_of(source, (*TABLE, *numbers))), *numbers]
            csv.writer(self.file, lineterminator="\n").writerow(head)
        labels, rows = source.labels[features.indices].tolist(), features.indices.tolist()
        names = classes_of(labels, source)
        targets = source.targets[rows].tolist() if source.targets is not None else [[]] * len(rows)
        table = csv.writer(self.file, lineterminator="")  # a row goes on with its numbers
        numbers_of = ",%.9g" * features.x.shape[1] + "\n"
        for i, (row, x) in enumerate(zip(rows, features.x.tolist(), strict=True)):
            path = source.paths[row] if source.paths else None
            table.writerow([cell(path), row, labels[i], cell(names[i]), split, *targets[i]])
            self.file.write(numbers_of % tuple(x))

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def classes_of(labels: list[int], source: ItemSet) -> list[str | None]:
    """The class name of each label; None of an item without."""
    return [source.classes[label] if 0 <= label < len(source.classes) else None for label in labels]


def titles_of(source: ItemSet, taken: Iterable[str]) -> list[str]:
    """The columns of the targets: `target_<name>` where a column has that name already."""
    others = set(taken)
    return [f"target_{name}" if name in others else name for name in source.target_names]


FILES: dict[str, type[NpzFile] | type[ParquetFile] | type[CsvFile]] = {
    "npz": NpzFile,
    "parquet": ParquetFile,
    "csv": CsvFile,
}


def need_pyarrow() -> None:
    """Say so before any feature is computed."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        fix = "pip install 'ssl-lightning[parquet]', or stage.formats=[npz]"
        raise UserError(f"parquet needs the package pyarrow; {fix}") from error
