"""The features that stage=embed has written, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.opened import Run

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "test", "all")


@dataclass(frozen=True, eq=False)
class Embedded:
    """The features of a data set, training items first.

    Attributes:
        features: float32 (N, D).
        labels: int64 (N,), -1 where there is none.
        classes: names of the labels (K,).
        split: (N,) "train" or "test" for each item.
        paths: (N,) of the files, absolute; None where items are no files.
        targets: (N, L) where each item has several labels, or numbers; None elsewhere.
        files: the features_<split>.npz that these were read from.
        run: the run of the embedding.

    >>> found = embed("runs/byol-folder", "holidays")  # doctest: +SKIP
    >>> found.features[found.split == "test"].shape  # doctest: +SKIP
    (120, 512)
    """

    features: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    classes: np.ndarray[Any, Any]
    split: np.ndarray[Any, Any]
    paths: np.ndarray[Any, Any] | None
    targets: np.ndarray[Any, Any] | None
    files: tuple[Path, ...]
    run: Run

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        n, d = self.features.shape
        files = ", ".join(str(Run(file).name) for file in self.files)
        return f"Embedded: features ({n}, {d}) float32, {len(self.classes)} classes, in {files}"


def embedded(run: Run) -> Embedded:
    """What a run of stage=embed has written."""
    import numpy as np

    files = tuple(path for split in SPLITS if (path := run.path / f"features_{split}.npz").is_file())
    if not files:
        raise UserError(f"{run.name} holds no features_<split>.npz, which arrays are read from; add npz to its formats")
    parts = []
    for file in files:
        with np.load(file) as opened_file:  # plain arrays, no pickle
            parts.append({key: opened_file[key] for key in opened_file.files})

    def joined(key: str) -> Any:
        return np.concatenate([part[key] for part in parts]) if all(key in part for part in parts) else None

    names = [file.stem.removeprefix("features_") for file in files]
    return Embedded(
        features=joined("features"),
        labels=joined("labels"),
        classes=parts[0]["classes"],
        split=np.concatenate([np.full(len(part["labels"]), name) for part, name in zip(parts, names, strict=True)]),
        paths=joined("paths"),
        targets=joined("targets"),
        files=files,
        run=run,
    )
