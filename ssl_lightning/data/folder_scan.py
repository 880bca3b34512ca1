"""Finds the image files under a folder, quickly and only once: the list is cached until a directory changes."""

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ssl_lightning.data.broken import say
from ssl_lightning.errors import UserError
from ssl_lightning.saving import open_new

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
)
# A directory changed within this time of the scan may change again without its time stamp showing it.
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class Listing:
    """Image files under `root`, as sorted paths relative to it, with "/" between the parts."""

    root: str
    files: list[str]

    def under(self, folder: str) -> "Listing":
        """The part of the list inside the sub-folder `folder`."""
        prefix = folder + "/"
        files = [name[len(prefix) :] for name in self.files if name.startswith(prefix)]
        return Listing(os.path.join(self.root, folder), files)

    def paths(self) -> list[str]:
        return [os.path.join(self.root, name) for name in self.files]


def cache_dir() -> Path:
    """Where lists and decoded images are kept: $XDG_CACHE_HOME/ssl_lightning, or ~/.cache/ssl_lightning."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ssl_lightning"


def list_images(root: str | Path) -> Listing:
    """All image files under `root`, at any depth. Hidden files and folders are left out; links are followed.

    What is named as an image but is no regular file (a pipe would block, a device never end) is skipped with a word.

    Raises:
        UserError: no such folder, or no image in it.
    """
    top = os.path.abspath(os.path.expanduser(os.fspath(root)))
    if not os.path.isdir(top):
        what = "is a file" if os.path.exists(top) else "does not exist"
        raise UserError(
            f"the image folder {top} {what}; give a folder of images, or of folders of images, one per class"
        )
    cache = cache_dir() / "listings" / f"{hashlib.sha256(os.fsencode(top)).hexdigest()[:32]}.json"
    files = _cached(cache)
    if files is None:
        started = time.time_ns()
        files, folders, others = _scan(top)
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            say(f"Skipped what is no regular file under {top}: {', '.join(others[:3])}{more}.")
        elif max(folders.values()) < started - SETTLED_NS:
            _store(cache, folders, files)
    if not files:
        raise UserError(
            f"no images under {top}; expected files such as .jpg or .png, directly or in one folder per class"
        )
    return Listing(top, files)


def _scan(top: str) -> tuple[list[str], dict[str, int], list[str]]:
    """Sorted relative image paths, the time stamp of each directory visited, and what is named so but is no file."""
    files: list[str] = []
    others: list[str] = []
    folders: dict[str, int] = {}
    visited: set[tuple[int, int]] = set()  # (device, inode): a link back to a parent must not loop
    pending = [(top, "")]
    while pending:
        folder, prefix = pending.pop()
        status = os.stat(folder)  # before reading: a change during the scan then shows
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[folder] = status.st_mtime_ns
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # a link may end in itself
                    pending.append((entry.path, f"{prefix}{name}/"))
                elif os.path.splitext(name)[1].lower() in SUFFIXES:
                    regular = os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()
                    (files if regular else others).append(prefix + name)
    return sorted(files), folders, sorted(others)


def _cached(cache: Path) -> list[str] | None:
    """The cached list, or None when there is none or any directory in it has changed since."""
    if not cache.is_file():
        return None
    stored = json.loads(cache.read_text())
    for folder, stamp in stored["folders"].items():
        if not os.path.isdir(folder) or os.stat(folder).st_mtime_ns != stamp:
            return None
    return stored["files"]


def _store(cache: Path, folders: dict[str, int], files: list[str]) -> None:
    if writable(cache.parent):
        write_atomic(cache, json.dumps({"folders": folders, "files": files}))


def writable(folder: Path) -> bool:
    """Makes `folder` if need be; False where that is not allowed (a read-only home, say): then nothing is cached."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    return True


def write_atomic(path: Path, text: str) -> None:
    """Writes a file that other processes see whole or not at all."""
    handle, name = open_new(path.parent, path.name)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(name, path)
