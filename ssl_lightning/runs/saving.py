"""Files that are whole or absent, checkpoints that are as they were written, and the way back to the one before."""

import hashlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ssl_lightning.core import files
from ssl_lightning.core.bounded import TooMuch
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import places, torch_files
from ssl_lightning.runs.inert import Refused

STAMP = b"sha256:"
STAMP_LENGTH = len(STAMP) + 64


class Damaged(UserError):
    """A checkpoint that is gone, cut short, altered, or none at all: an earlier one may do."""


# ---- writing


def save_atomic(obj_or_writer: Any, path: str | Path, keep: Path | None = None) -> Path:
    """Write a file so that at any moment either the old one or the whole new one is there, even after a power cut.

    `obj_or_writer` is an object for `torch.save`, or a function that writes to the path it is given. With `keep` the
    old file stays under that name. Raises UserError when the folder cannot be made or written.
    """
    path = Path(path)
    writer: Callable[[Path], Any] = (
        obj_or_writer if callable(obj_or_writer) else lambda p: save_stamped(obj_or_writer, p)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic(path, durable=True, keep=keep) as temporary:
            writer(temporary)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {path}: {why}; choose another folder with runs_dir=") from error
    return path


class _Hashing(io.BufferedWriter):
    """A file that is hashed as it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.hash = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.hash.update(content)
        return super().write(content)


def save_stamped(obj: Any, path: Path) -> None:
    """`torch.save`, with the file's SHA-256 as the comment of the zip archive that it is.

    torch's own checksums cover the tensors, but not the archive's directory, where a changed byte can go unnoticed.
    """
    with _Hashing(path) as file:
        try:
            torch.save(obj, file)
        except RuntimeError as error:  # torch reports a full disk as a broken zip; the cause says what it was
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        stamp = STAMP + file.hash.hexdigest().encode()
        file.seek(-2, os.SEEK_END)  # the length of the comment, which ends an archive without one
        file.write(struct.pack("<H", STAMP_LENGTH) + stamp)


def _is_whole(file: BinaryIO) -> bool:
    """Is this archive as it was written, as far as it says what that was? Reads it once."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - STAMP_LENGTH - 2, 0))
    end = file.read()
    stamped = end[:2] == struct.pack("<H", STAMP_LENGTH) or end[2:].startswith(STAMP)
    file.seek(0)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            torch_files.check_archive(archive, size)
            if not stamped:  # of another program, or an older version of this one
                return archive.testzip() is None
    elif not stamped:
        return True
    file.seek(0)
    found, left = hashlib.sha256(), size - STAMP_LENGTH - 2
    while part := file.read(min(left, 1 << 20)):
        found.update(part)
        left -= len(part)
    found.update(bytes(2))  # the comment's length as it was before
    return end == struct.pack("<H", STAMP_LENGTH) + STAMP + found.hexdigest().encode()


def save_safetensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """safetensors' own file, with the header's keys in order: of more than one metadata key it writes any order."""
    save_file(dict(state), path, dict(metadata))
    with open(path, "rb+") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        tensors = sorted(header.items(), key=lambda item: item[1].get("data_offsets", []))  # metadata has none: first
        ordered = dict(tensors) | {"__metadata__": dict(sorted(header["__metadata__"].items()))}
        text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "a header of the same content is no longer than before"
        file.seek(8)
        file.write(text.ljust(length))


# ---- reading


def existing(path: str | Path) -> Path:
    """`path`, if there is a file."""
    if Path(path).is_dir():
        raise UserError(f"{path} is a sharded checkpoint; only the run that wrote it, on as many devices, reads it")
    if not Path(path).is_file():
        raise Damaged(places.nowhere(Path(path)))
    return Path(path)


def load(path: str | Path, strict: bool = False) -> Any:
    """Read a checkpoint onto the CPU without running any code it may hold; what is no plain value is an `inert.Thing`.

    Args:
        strict: refuse what holds such things.

    Raises:
        UserError: the file is absent, truncated, damaged, not a checkpoint, names what `inert` does not know, or stands
            for far more than it holds.
    """
    path = existing(path)
    try:
        with open(path, "rb") as file:  # opened once: another run may put a new file in its place
            if not _is_whole(file):
                raise zipfile.BadZipFile
            return torch_files.read(file, strict)
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; change its permissions") from error
    except MemoryError:  # says nothing of the file
        raise
    except Exception as error:  # a foreign file fails inside the reader in a dozen ways; all mean the same to the user
        if isinstance(error, TooMuch):
            raise UserError(f"{path} {error}; save the network's state_dict alone") from error
        if isinstance(error, Refused):
            fix = "save its plain state_dict instead"
            raise UserError(f"{path} holds {error}, which could run code on loading; {fix}") from error
        raise Damaged(f"{path} is truncated, damaged or not a checkpoint; use an earlier one") from error


def previous(path: str | Path) -> Path:
    """Where the checkpoint before `path` lies, `checkpoints/last.ckpt`."""
    return Path(path).with_name("previous.ckpt")


def load_state(path: str | Path) -> dict[str, Any]:
    """A checkpoint of Lightning's from which training can go on. Raises `Damaged` for anything else."""
    content = load(path)
    if not (isinstance(content, dict) and {"state_dict", "loops", "optimizer_states"} <= content.keys()):
        raise Damaged(f"{path} is not a checkpoint of a training; use an earlier one")
    return content


def load_newest(
    path: Path, read: Callable[[Path], Any] = load_state, agreed: Callable[[bool], bool] = bool
) -> tuple[Any, Path]:
    """What `path` holds, or, where that is damaged or gone, the checkpoint before it; and which of the two it was.

    `agreed` says whether all ranks could read it. Raises UserError when neither can be read.
    """
    found: list[str] = []
    for candidate in (path, previous(path)):
        content = None
        try:
            content = read(candidate)
        except Damaged:
            found.append(f"{candidate} is {'damaged' if candidate.exists() else 'absent'}")
        if agreed(content is not None):
            return content, candidate
    raise UserError(
        f"{' and '.join(found) or path}: no checkpoint to continue from. Restore one of the two, give this run another "
        "name=, or begin again with resume=never (the old folder is kept)"
    )


def fallen_back(path: Path, used: Path) -> str:
    """The word on it."""
    return f"{path} is {'damaged' if path.exists() else 'absent'}; going on from the one before it, {used.name}"
