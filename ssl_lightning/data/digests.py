"""What a set of items, and the way it is shown in evaluation, depend on, as a short text: the key of kept features.

Of files the path, size and time of change of each; of items in memory their bytes. Only sets and data modules of this
package have one: what another class does with an item is not known here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

OURS = "ssl_lightning."
# Of a set: what is said of the rows that are asked for, or is counted while they are read.
OF_LABELS = (
    "labels",
    "classes",
    "targets",
    "target_names",
    "targets_borne",
    "groups",
    "group_names",
    "broken",
    "paths",
)
CHUNK = 2**24  # bytes hashed at a time


def plain(value: Any) -> bool:
    """Is this a number, a text, or a list of such?"""
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def of_tensor(tensor: Tensor | np.ndarray) -> str:
    """A digest of type, shape and bytes."""
    array = tensor.detach().cpu().contiguous() if isinstance(tensor, Tensor) else torch.from_numpy(np.asarray(tensor))
    digest = hashlib.sha256(f"{array.dtype} {tuple(array.shape)}".encode())
    flat = array.reshape(-1).view(torch.uint8) if array.numel() else array.reshape(-1)
    for start in range(0, len(flat), CHUNK):
        digest.update(flat[start : start + CHUNK].numpy().data)
    return digest.hexdigest()


def of_items(items: Any, rows: Tensor) -> str | None:
    """Of these rows (M,) of a set; None where nobody can tell."""
    if not type(items).__module__.startswith(OURS):
        return None
    digest = hashlib.sha256(f"{type(items).__qualname__} {len(items)}".encode())
    paths = getattr(items, "paths", None)
    if paths is not None and not _stated(digest, paths, rows):
        return None
    for name, value in sorted(vars(items).items()):
        if name in OF_LABELS:
            continue
        if isinstance(value, Tensor | np.ndarray):
            count = value.size if isinstance(value, np.ndarray) else value.numel()
            if paths is None or count <= len(paths):  # what was decoded from files is told by the files
                digest.update(f"{name} {of_tensor(value)}".encode())
        elif plain(value):
            digest.update(f"{name} {value!r}".encode())
        else:
            return None
    digest.update(of_tensor(rows).encode())
    return digest.hexdigest()


def _stated(digest: Any, paths: list[str], rows: Tensor) -> bool:
    for row in rows.tolist():
        try:
            status = os.stat(paths[row])
        except OSError:  # it is broken, and may come back
            return False
        digest.update(os.fsencode(paths[row]) + f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
    return True


def of_view(kind: type[Any], card: Mapping[str, Any]) -> str | None:
    """Of the evaluation view of a data module, by its class and its card; None where nobody can tell."""
    return of_mapping({"class": kind.__qualname__, "card": card}) if kind.__module__.startswith(OURS) else None


def of_mapping(found: Mapping[str, Any]) -> str:
    """A digest of plain values by name."""
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()
