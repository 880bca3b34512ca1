"""Files that are whole or absent: written under another name beside their place, then renamed. The only such code."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)  # what fsync of one may answer


@contextlib.contextmanager
def atomic(path: Path, durable: bool = False, keep: Path | None = None) -> Iterator[Path]:
    """Gives the path of an empty file to write to; it takes the name `path` when the block ends, unless by an error.

    At any moment the old file or the whole new one is there. The temporary file lies in the same folder (a rename is
    atomic only within one file system), under a name that no other process or thread has, is hidden, ends with the
    process' number and ".tmp", and is removed where the block fails. The new file's permissions follow the umask.

    Args:
        durable: flush the file and the rename to the disk, so that this holds after a power cut, too.
        keep: another name for the old file, which keeps it.

    Raises:
        OSError: the folder is not there or cannot be written, or the disk is full.
    """
    temporary = _made(path)
    try:
        mode = temporary.stat().st_mode  # what the user's umask leaves; some writers make a file for its owner alone
        yield temporary
        temporary.chmod(mode)
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        if keep is not None and path.is_file():
            _keep(path, keep)
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # renamed; or its folder has gone
            temporary.unlink()


def write_atomic(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Write a small file so that others see the old one or the whole new one; text as UTF-8. See `atomic`."""
    with atomic(path, durable) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def all_or_none(folder: Path) -> Iterator[Path]:
    """A folder to write to, whose files and folders take their places in `folder` when the block ends without error."""
    place = Path(tempfile.mkdtemp(prefix=".made.", suffix=".tmp", dir=folder))
    try:
        yield place
        for made in sorted(place.iterdir()):
            there = folder / made.name
            if there.is_dir():  # of an export before: a folder cannot be replaced at once
                there.rename(place / f"{made.name}.before")
            os.replace(made, there)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")


def _made(path: Path) -> Path:
    """An empty file beside `path`, made by nobody else: never one that a link leads to. Unlike mkstemp's it follows
    the umask."""
    temporary = _beside(path)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _keep(path: Path, kept: Path) -> None:
    """Give a file a second name, in place of what had that name; the first name is never without a file."""
    link = _beside(kept)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links: for a moment only the second name is there
        os.replace(path, kept)
        return
    os.replace(link, kept)
    link.unlink(missing_ok=True)  # it stays where both names are of one file already


def _sync_folder(folder: Path) -> None:
    """The rename itself is on disk only once the folder is. Windows and some file systems open no folder for that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDERS:
            raise
    finally:
        os.close(descriptor)
