"""The two formats of files that torch writes, read without torch's own unpickler: see `inert`."""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from typing import Any, BinaryIO

import torch

from ssl_lightning.core.bounded import Allowance, check_amount
from ssl_lightning.runs.inert import Refused, Storage, Unpickler

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
PIECE = 1 << 20


def read(file: BinaryIO, strict: bool = False) -> Any:
    """What torch has saved in this file: tensors and plain values as they are, and all else as an `inert.Thing`.

    Args:
        strict: refuse all else.

    Raises:
        inert.Refused: the file names what is not on the list.
        bounded.TooMuch: it stands for far more than it holds.
        Exception: others, for what is no such file.
    """
    size = file.seek(0, 2)
    file.seek(0)
    archived = file.read(4) == b"PK\x03\x04" and zipfile.is_zipfile(file)
    file.seek(0)
    content = _read_archive(file, size, strict) if archived else _read_old(file, size, strict)
    check_amount(content)
    return content


def check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Raise BadZipFile for an archive that unpacks to more than it is. torch packs nothing."""
    parts = archive.infolist()
    if sum(part.file_size for part in parts) > size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise zipfile.BadZipFile("a packed archive")


def _read_archive(file: BinaryIO, size: int, strict: bool) -> Any:
    with zipfile.ZipFile(file) as archive:
        check_archive(archive, size)
        root = min((n for n in archive.namelist() if f"/{n}".endswith("/data.pkl")), key=len).removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise Refused("a TorchScript program")
        order = archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in archive.namelist() else "little"
        found: dict[str, torch.UntypedStorage] = {}

        def storage_of(pid: tuple[Any, ...]) -> Storage:
            dtype, key = pid[1], _key(pid)
            if key not in found:
                part = archive.getinfo(f"{root}data/{key}")
                with archive.open(part) as numbers:
                    found[key] = _fill(torch.UntypedStorage(part.file_size), numbers)
                if order != sys.byteorder:
                    found[key].byteswap(dtype)
            return Storage(dtype, found[key])

        with archive.open(f"{root}data.pkl") as pickled:
            size = archive.getinfo(f"{root}data.pkl").file_size
            return Unpickler(pickled, size, storage_of, strict=strict).load()


def _key(pid: tuple[Any, ...]) -> str:
    if not isinstance(pid[2], str | int):
        raise pickle.UnpicklingError("a storage without a name")
    return str(pid[2])


def _fill(storage: torch.UntypedStorage, file: Any) -> torch.UntypedStorage:
    """With the next bytes of the file: what is not there is no weight."""
    size = storage.nbytes()
    into: Any = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    for start in range(0, size, PIECE):
        part = file.read(min(PIECE, size - start))
        if len(part) != min(PIECE, size - start):
            raise EOFError
        into[start : start + len(part)] = memoryview(part)
    return storage


def _read_old(file: BinaryIO, size: int, strict: bool) -> Any:
    """Some pickles one after another, then the numbers of each storage."""
    allowance = Allowance(size)
    if any(Unpickler(file, size, None, allowance).load() != known for known in (MAGIC, VERSION)):
        raise pickle.UnpicklingError("no file of torch's")
    Unpickler(file, size, None, allowance).load()  # of the machine that wrote it
    found: dict[str, tuple[int, torch.UntypedStorage]] = {}
    left = size

    def storage_of(pid: tuple[Any, ...]) -> Storage:
        nonlocal left
        _, dtype, _, _, count, *view = pid
        key = _key(pid)
        if view and view[0] is not None:
            raise pickle.UnpicklingError("a storage that is a part of another")
        if key not in found:
            if type(count) is not int or not 0 <= count * dtype.itemsize <= left:
                raise pickle.UnpicklingError("storages larger than their file")
            left -= count * dtype.itemsize
            found[key] = count, torch.UntypedStorage(count * dtype.itemsize)
        return Storage(dtype, found[key][1])

    content = Unpickler(file, size, storage_of, allowance, strict).load()
    empty = dict(found)  # what lay in the memory before is no weight
    for key in Unpickler(file, size, None, allowance).load():
        count, storage = empty.pop(key)
        if struct.unpack("<q", file.read(8)) != (count,):
            raise EOFError
        _fill(storage, file)
    if any(storage.nbytes() for _, storage in empty.values()):
        raise EOFError
    return content
