"""`report.npz`: what a page needs of features and items, so that it can be drawn again from the run's folder alone.

Plain arrays and one JSON text (`about`); it loads without pickle, and equal runs write equal bytes. N test items:

- `features` (N, R) float16, the normalised features on their R <= 64 largest principal axes; `labels` (N,), -1 where
  there is none; `indices` (N,); `found` (N,), the class that kNN says, -1 where it was not asked; `typical` (N,), mean
  cosine to the nearest items.
- `queries` (Q,), rows of these; `nearest` (Q, 6) indices of the split that `about.bank` names, `nearest_labels`,
  `nearest_cosines`.
- `pairs` (P, 2) indices of near-duplicates, of a test item and one of the split `pair_splits` (P,), 0 test and 1 train;
  `pair_cosines` (P,).
- `sheet`, `large`: JPEG files of thumbnails, `about.side` and `about.large_side` pixels each, `about.across` in a row;
  row i of `features` is thumbnail i of `sheet`; those of `large` are told by `large_splits` and `large_indices`.
- `map_<name>` (N, 2): further maps.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ssl_lightning.core import files

FILE = "report.npz"
LARGEST = 64 << 20  # bytes of a file that is read


@dataclass(frozen=True)
class Kept:
    """What a `report.npz` holds."""

    about: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def get(self, name: str) -> np.ndarray | None:
        """An array, or None where there is none of the name."""
        return self.arrays.get(name)


def read(folder: Path) -> Kept:
    """What lies in a run's folder; empty where there is no such file, or none that can be read."""
    path = folder / FILE
    if not path.is_file() or path.stat().st_size > LARGEST:
        return Kept()
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about = json.loads(str(arrays.pop("about"))) if "about" in arrays else {}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return Kept()
    return Kept(about if isinstance(about, dict) else {}, arrays)


def write(folder: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file anew, whole or not at all."""
    text = np.array(json.dumps(dict(about), sort_keys=True, default=str))
    with files.atomic(folder / FILE) as temporary, open(temporary, "wb") as file:  # a name would get .npz appended
        np.savez_compressed(file, about=text, **arrays)  # type: ignore[arg-type]


def add(folder: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Add to what is there; what has the same name is replaced."""
    old = read(folder)
    write(folder, {**old.about, **about}, {**old.arrays, **arrays})
