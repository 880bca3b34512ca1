"""Which data a run was about, whatever their place: by it runs on two copies of a folder are known to be comparable."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ssl_lightning.data.items import ItemSet

SIZES = 2000  # files of which the size is asked for: each is a request to a disk or a server
READ = 256  # bytes of an item in memory that are looked at, evenly spread
ITEMS = 200_000  # in memory; of more, labels and count alone


def fingerprint(sets: Sequence[ItemSet], test: int, classes: int) -> dict[str, Any]:
    """{"test", "classes", "items", "sha256"} of all items of a data set, in any order and however they are split.

    Of files it takes the paths below the folder that they share, the labels, and some sizes; of items in memory the
    labels and some bytes of each. So it stays the same where a folder is moved, and for every seed of a split.

    Args:
        sets: those for training, test and probes; one that is given twice counts once.
        test: items that are evaluated on.
        classes: how many there are.
    """
    parts = list({id(one): one for one in sets}.values())
    paths = [path for one in parts for path in one.paths or ()]
    ends = [os.path.dirname(path) for path in (min(paths), max(paths))] if paths else []
    root = os.path.commonpath(ends) if ends else ""  # of all between them, too
    files = {path: label for one in parts if one.paths for path, label in zip(one.paths, _labels(one), strict=True)}
    others = sorted(line for one in parts if not one.paths for line in _held(one))
    named = sorted(files)
    digest = hashlib.sha256()
    for line in (*(f"{path.removeprefix(root).replace(os.sep, '/')}\0{files[path]}" for path in named), *others):
        digest.update(line.encode(errors="surrogateescape") + b"\n")
    for path in named[:: max(1, len(named) // SIZES)]:
        with contextlib.suppress(OSError):
            digest.update(b"%d\n" % os.stat(path).st_size)
    return {"test": test, "classes": classes, "items": len(files) + len(others), "sha256": digest.hexdigest()}


def _labels(items: ItemSet) -> Iterator[str]:
    """What is known of each item, in words."""
    names = list(items.classes)
    targets = None if items.targets is None else items.targets.tolist()
    for i, label in enumerate(items.labels.tolist()):
        told = names[label] if 0 <= label < len(names) else str(label)
        yield told if targets is None else f"{told} {targets[i]}"


def _held(items: ItemSet) -> Iterator[str]:
    """A line for each item that has no file."""
    look = items.in_memory and len(items) <= ITEMS
    for i, label in enumerate(_labels(items)):
        yield f"{_bytes(items[i][0]) if look else ''}\0{label}"


def _bytes(item: Any) -> str:
    """Shape and checksum of an item that is a tensor."""
    if not isinstance(item, torch.Tensor):
        return type(item).__name__
    flat = item.detach().cpu().contiguous().flatten()
    some = flat[:: max(1, len(flat) // READ)].contiguous()
    return f"{tuple(item.shape)} {zlib.crc32(some.view(torch.uint8).numpy().tobytes()) if len(some) else 0}"
