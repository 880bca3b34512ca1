"""Features kept on disk and mapped into memory, so that no network sees the same items twice.

A file holds the features of some items of a split by one network: `x` (N, D) float32, `labels` and `indices`, as in
`Features`. It is a safetensors file whose header is padded to `HEADER` bytes, so that rows can be written as they come
and N at the end. Its name is the digest of all that the features depend on (`stages/kept_features.py`). Files are
written whole or not at all, checked by a sum when they are read, and the least recently used go where all together
become too large.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core import files, progress
from ssl_lightning.data.broken import say
from ssl_lightning.data.folder_scan import cache_dir, writable
from ssl_lightning.evaluation.features import Features

MOST_BYTES = 10 * 1024**3  # of all files together
SPARE_BYTES = 256 * 1024**2  # that stay free on the disk
HEADER = 4096  # bytes
TYPES = {"F32": torch.float32, "I64": torch.int64}
CHUNK = 2**24  # bytes checked at a time
SUFFIX = ".safetensors"
DAMAGED = (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError)  # RuntimeError: of torch, for a shape
_told = set[Path]()  # folders that this process has named


class FeatureCache:
    """A folder of kept features.

    Args:
        folder: None: `features` in the cache folder, where lists of files and decoded images are kept, too.
        most: bytes of all files together.
    """

    def __init__(self, folder: Path | None = None, most: int = MOST_BYTES) -> None:
        self.folder, self.most = folder or cache_dir() / "features", most

    def path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def read(self, key: str) -> Features | None:
        """The features of this key, mapped; None where there are none. A damaged file is removed, with a line."""
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            found = _mapped(path)
        except FileNotFoundError:  # another process has made room just now
            return None
        except DAMAGED as error:
            why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            say(f"The kept features {path} are damaged ({why}); they are computed anew.")
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # the least recently used go first
            os.utime(path)
        return found

    def write(self, key: str, parts: Iterable[Features], bytes_wanted: int) -> bool:
        """Write parts, by increasing index, as they come; False, with a line, where that cannot be.

        `bytes_wanted`: about how large the file will be. Parts are not asked for where there is no room.
        """
        if not writable(self.folder):
            say(f"The cache folder {self.folder} cannot be written; features are not kept.")
            return False
        room = min(self.most, max(0, shutil.disk_usage(self.folder).free - SPARE_BYTES))
        if bytes_wanted > room:
            say(f"Features of {_size(bytes_wanted)} are not kept in {self.folder}: {_size(room)} may be used there.")
            return False
        watched = _Watched(parts)
        try:
            with files.atomic(self.path(key)) as temporary, open(temporary, "wb") as file:
                _write(file, watched)
        except OSError as error:
            if watched.failed:  # not the disk's fault
                raise
            say(f"Features cannot be kept in {self.folder} ({error.strerror or error}); going on without.")
            return False
        self._drop_old(self.path(key))
        return True

    def _drop_old(self, new: Path) -> None:
        """Remove the least recently used files, never `new`, until all together fit."""
        with contextlib.suppress(OSError):  # another process may remove some, too
            found = {path: path.stat() for path in self.folder.glob(f"*{SUFFIX}")}
            total, dropped = sum(status.st_size for status in found.values()), 0
            for path in sorted(found, key=lambda path: found[path].st_mtime_ns):
                if total <= self.most or path == new:
                    continue
                path.unlink()
                total, dropped = total - found[path].st_size, dropped + 1
            if dropped:
                say(f"Dropped the {dropped} least recently used files of {self.folder}; {_size(total)} are left there.")
            if self.folder not in _told:
                _told.add(self.folder)
                progress.say(f"features are kept in {self.folder}, {_size(total)} by now")


class _Watched:
    """Parts, and whether making them has failed."""

    def __init__(self, parts: Iterable[Features]) -> None:
        self.parts, self.failed = parts, False

    def __iter__(self) -> Iterator[Features]:
        try:
            yield from self.parts
        except Exception:
            self.failed = True
            raise


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _write(file: BinaryIO, parts: _Watched) -> None:
    """A header's worth of spaces, all x, then labels and indices, then the header itself."""
    file.write(b" " * HEADER)
    rows = width = total = 0
    labels, indices = list[Tensor](), list[Tensor]()
    for part in parts:
        x = part.x.contiguous().numpy()
        file.write(x.data)
        total = zlib.crc32(x.data, total)
        rows, width = rows + len(x), x.shape[1]
        labels.append(part.labels)
        indices.append(part.indices)
    arrays = {"labels": torch.cat(labels), "indices": torch.cat(indices)}
    places, end = {"x": _described("F32", [rows, width], 0)}, 4 * rows * width
    for name, tensor in arrays.items():
        kind = next(kind for kind, dtype in TYPES.items() if dtype == tensor.dtype)
        places[name] = _described(kind, list(tensor.shape), end)
        block = tensor.contiguous().numpy().data
        file.write(block)
        total, end = zlib.crc32(block, total), end + block.nbytes
    header = json.dumps({"__metadata__": {"crc32": str(total)}, **places}).encode()
    file.seek(0)
    file.write((HEADER - 8).to_bytes(8, "little") + header.ljust(HEADER - 8))


def _described(kind: str, shape: list[int], start: int) -> dict[str, Any]:
    size = int(np.prod(shape)) * TYPES[kind].itemsize
    return {"dtype": kind, "shape": shape, "data_offsets": [start, start + size]}


def _mapped(path: Path) -> Features:
    """A file's features. Raises one of `DAMAGED` for one that is not whole."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
    if len(head) < HEADER or int.from_bytes(head[:8], "little") != HEADER - 8:
        raise ValueError("its header is cut off")
    told = json.loads(head[8:])
    places = {name: told[name] for name in ("x", "labels", "indices")}
    end = max(int(place["data_offsets"][1]) for place in places.values())
    if path.stat().st_size != HEADER + end:
        raise ValueError("it is not of its size")
    whole = np.memmap(path, np.uint8, "c", HEADER)  # "c": torch then sees an array it may write to, and does not warn
    total = 0
    for start in range(0, end, CHUNK):
        total = zlib.crc32(whole[start : start + CHUNK].data, total)
    if str(total) != told["__metadata__"]["crc32"]:
        raise ValueError("its sum is another one")
    found = {}
    for name, place in places.items():
        start, stop = place["data_offsets"]
        flat = torch.from_numpy(whole[start:stop]).view(TYPES[place["dtype"]])
        found[name] = flat.view(place["shape"])
    if not len(found["x"]) == len(found["labels"]) == len(found["indices"]):
        raise ValueError("its parts do not fit together")
    return Features(found["x"], found["labels"], found["indices"])
