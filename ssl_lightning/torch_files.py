"""The two formats of files that torch writes, read without torch's own unpickler: see `inert`."""

from __future__ import annotations

import pickle
import struct
import zipfile
from typing import Any, BinaryIO

import torch

from ssl_lightning.inert import Refused, Storage, Unpickler

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6


def read(file: BinaryIO) -> Any:
    """What torch has saved in this file: tensors and plain values as they are, and all else as an `inert.Thing`.

    Raises `inert.Refused` for a file that names what is not on the list, and other errors for what is no such file.
    """
    size = file.seek(0, 2)
    if zipfile.is_zipfile(file):
        return _read_archive(file)
    file.seek(0)
    return _read_old(file, size)


def _read_archive(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        root = min((n for n in archive.namelist() if f"/{n}".endswith("/data.pkl")), key=len).removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise Refused("a TorchScript program")
        found: dict[str, torch.UntypedStorage] = {}

        def storage_of(pid: tuple[Any, ...]) -> Storage:
            dtype, key = pid[1], str(pid[2])
            if key not in found:
                found[key] = _filled(archive.read(f"{root}data/{key}"))
            return Storage(dtype, found[key])

        with archive.open(f"{root}data.pkl") as pickled:
            return Unpickler(pickled, archive.getinfo(f"{root}data.pkl").file_size, storage_of).load()


def _filled(content: bytes) -> torch.UntypedStorage:
    if not content:
        return torch.UntypedStorage(0)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).untyped_storage()


def _read_old(file: BinaryIO, size: int) -> Any:
    """Some pickles one after another, then the numbers of each storage."""
    if Unpickler(file, size).load() != MAGIC or Unpickler(file, size).load() != VERSION:
        raise pickle.UnpicklingError("no file of torch's")
    Unpickler(file, size).load()  # of the machine that wrote it
    found: dict[str, Storage] = {}

    def storage_of(pid: tuple[Any, ...]) -> Storage:
        _, dtype, key, _, count, *view = pid
        if type(count) is not int or not 0 <= count * dtype.itemsize <= size or (view and view[0] is not None):
            raise pickle.UnpicklingError("a storage larger than its file, or a part of another")
        if str(key) not in found:
            found[str(key)] = Storage(dtype, torch.UntypedStorage(count * dtype.itemsize))
        return Storage(dtype, found[str(key)].bytes)

    content = Unpickler(file, size, storage_of).load()
    empty = dict(found)  # what lay in the memory before is no weight
    for key in Unpickler(file, size).load():
        dtype, held = found[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        if count * dtype.itemsize != held.nbytes():
            raise EOFError
        held.copy_(_filled(file.read(held.nbytes())))
        del empty[str(key)]
    if any(storage.bytes.nbytes() for storage in empty.values()):
        raise EOFError
    return content
