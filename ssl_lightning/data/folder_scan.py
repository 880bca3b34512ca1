"""Finds the files of one kind under a folder, quickly and only once: the list is cached until a directory changes."""

import contextlib
import hashlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.core import files
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import counted, named, say

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
) | {".jp2", ".j2k", ".tga", ".dib", ".mpo", ".apng"}
ARRAY = ".npy"  # one image each, where there is no other image file
# What lies beside images and is none: not worth a word.
_BESIDE = """.txt .csv .tsv .json .jsonl .xml .yaml .yml .toml .md .rst .html .htm .log .ini .cfg .db .sqlite .lock .py
.ipynb .sh .zip .tar .gz .tgz .bz2 .xz .7z .rar .npz .pkl .pt .pth .ckpt .safetensors .mat .h5 .hdf5 .parquet .xls .xlsx
.doc .docx .pdf .lnk .url .part .sha1 .sha256 .md5 .bat .lst .names .data .npy"""
BESIDE = frozenset(_BESIDE.split())
_NOTES = "readme license licence copying notice authors changelog version makefile dockerfile desktop.ini"
NOTES = frozenset(_NOTES.split())
# Folders that a system or program keeps beside the user's own files, with copies or thumbnails in them.
KEPT_BY_PROGRAMS = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
# A directory changed within this time of the scan may change again without its time stamp showing it.
SETTLED_NS = 2_000_000_000
FORMAT = 2  # of the cached list
MOST_VISITS = 8  # of one folder, under as many names: links between folders could go on without an end


@dataclass(frozen=True)
class Kind:
    """What is looked for: files of these suffixes, what one is called, and two suffixes for the message.

    `fallback` is a suffix that is taken where there is no other file of the kind.
    """

    word: str
    suffixes: frozenset[str]
    examples: str
    fallback: str = ""


IMAGES = Kind("image", SUFFIXES, ".jpg or .png", ARRAY)


@dataclass(frozen=True)
class Listing:
    """Files of one kind under `root`, as sorted paths relative to it, with "/" between the parts.

    Attributes:
        kind: of the files.
        empty: folders directly under `root` that hold no image.
        same: the names of folders that are one folder, through links; the folder itself first where it is among them.
    """

    root: str
    files: list[str]
    empty: list[str] = field(default_factory=list)
    same: list[list[str]] = field(default_factory=list)
    kind: Kind = IMAGES

    def under(self, folder: str) -> "Listing":
        """The part of the list inside the sub-folder `folder`."""
        prefix = folder + "/"
        same = [[name[len(prefix) :] for name in names if name.startswith(prefix)] for names in self.same]
        return Listing(
            os.path.join(self.root, folder),
            [name[len(prefix) :] for name in self.files if name.startswith(prefix)],
            [name[len(prefix) :] for name in self.empty if name.startswith(prefix)],
            [names for names in same if len(names) > 1],
            self.kind,
        )

    def only(self, files: Iterable[str]) -> "Listing":
        """The same folder with these files alone."""
        return Listing(self.root, sorted(files), self.empty, self.same, self.kind)

    def paths(self) -> list[str]:
        return [os.path.join(self.root, name) for name in self.files]


def cache_dir() -> Path:
    """Where lists and decoded images are kept: $XDG_CACHE_HOME/ssl_lightning, or ~/.cache/ssl_lightning."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ssl_lightning"


def list_images(root: str | Path) -> Listing:
    """All image files under `root`; see `list_files`."""
    return list_files(root, IMAGES)


def list_files(root: str | Path, kind: Kind) -> Listing:
    """All files of a kind under `root`, at any depth. Hidden files and folders are left out; links are followed.

    What is named as one but is no regular file (a pipe would block, a device never end, a link may lead nowhere),
    and files of formats that are not read, are skipped with a word.

    Raises:
        UserError: no such folder, or no such file in it.
    """
    top = os.path.abspath(os.path.expanduser(os.fspath(root)))
    if not os.path.isdir(top):
        what = "is a file" if os.path.exists(top) else "does not exist"
        raise UserError(
            f"the {kind.word} folder {top} {what}; give a folder of {kind.word}s, or of folders of {kind.word}s, "
            "one per class"
        )
    own = b"" if kind == IMAGES else f"\0{kind.word} {sorted(kind.suffixes)}".encode()
    cache = cache_dir() / "listings" / f"{hashlib.sha256(os.fsencode(top) + own).hexdigest()[:32]}.json"
    listing, words = _cached(cache, top, kind)
    if listing is None:
        started = time.time_ns()
        scan = _scan(top, kind)
        listing, words = scan.listing(top), scan.words(top)
        if not scan.others and max(scan.folders.values()) < started - SETTLED_NS:
            _store(cache, scan.folders, listing, words)
    for line in words:
        say(line)
    if not listing.files:
        raise UserError(
            f"no {kind.word}s under {top}; expected files such as {kind.examples}, directly or in one folder per class"
        )
    return listing


@dataclass
class Scan:
    """What was found: files of the kind, of its fallback, what is named as one but is no file, other files that may be
    some, and each folder's time stamp."""

    kind: Kind = IMAGES
    files: list[str] = field(default_factory=list)
    arrays: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)
    names: dict[tuple[int, int], list[tuple[bool, str]]] = field(default_factory=dict)  # (is a link, relative path)

    def listing(self, top: str) -> Listing:
        files = sorted(self.files or self.arrays)
        inside = {name[: i + 1] for name in files for i, letter in enumerate(name) if letter == "/"}
        folders = [name for names in self.names.values() for _, name in names if name]
        empty = sorted(name.rstrip("/") for name in folders if name not in inside)
        same = [[name.rstrip("/") for _, name in sorted(names)] for names in self.names.values() if len(names) > 1]
        return Listing(top, files, empty, _outermost(same), self.kind)

    def words(self, top: str) -> list[str]:
        """One line for each kind of thing that is skipped."""
        lines = []
        if self.others:
            lines.append(
                f"Skipped links and entries that are not regular files under {top}: {named(sorted(self.others))}."
            )
        if self.foreign:
            kinds = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in self.foreign)
            told = named([f"{kind} {count}" for kind, count in kinds.most_common()], 4)
            what = counted(len(self.foreign), "file")
            lines.append(
                f"Skipped {what} of formats that are not read ({told}) under {top}: {named(sorted(self.foreign))}."
            )
        if self.unreadable:
            lines.append(f"Skipped folders that may not be read under {top}: {named(sorted(self.unreadable))}.")
        return lines


def _outermost(same: list[list[str]]) -> list[list[str]]:
    """Without the folders inside folders that are one: they are one, too."""
    groups = [set(names) for names in same]

    def inner(names: list[str]) -> bool:
        return any({name.rpartition("/")[0] for name in names} == group for group in groups)

    return sorted(names for names in same if not inner(names))


def _scan(top: str, kind: Kind) -> Scan:
    """Everything under `top`. A link to a folder that it lies in is not followed."""
    found = Scan(kind)
    # The nearest first: a folder is to be met by its own name before by links deep inside others.
    pending: deque[tuple[str, str, bool, frozenset[tuple[int, int]]]] = deque([(top, "", False, frozenset())])
    while pending:
        folder, prefix, linked, above = pending.popleft()
        status = os.stat(folder)  # before reading: a change during the scan then shows
        own = (status.st_dev, status.st_ino)
        names = found.names.setdefault(own, [])
        if own in above or len(names) >= MOST_VISITS:
            continue
        names.append((linked, prefix))
        found.folders[folder] = status.st_mtime_ns
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except PermissionError:
            found.unreadable.append(prefix.rstrip("/"))
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in KEPT_BY_PROGRAMS:
                continue
            link = entry.is_symlink()
            if os.path.isdir(entry.path) if link else entry.is_dir():  # a link may end in itself
                pending.append((entry.path, f"{prefix}{entry.name}/", linked or link, above | {own}))
            else:
                _sort(entry, prefix + entry.name, link, found)
    return found


def _sort(entry: "os.DirEntry[str]", name: str, link: bool, found: Scan) -> None:
    """One file, to where it belongs."""
    suffix = os.path.splitext(name)[1].lower()
    regular = os.path.isfile(entry.path) if link else entry.is_file()
    if suffix in found.kind.suffixes:
        (found.files if regular else found.others).append(name)
    elif suffix == found.kind.fallback and suffix and regular:
        found.arrays.append(name)
    elif suffix not in BESIDE and regular and entry.name.lower() not in NOTES:
        found.foreign.append(name)


def _cached(cache: Path, top: str, kind: Kind) -> tuple[Listing | None, list[str]]:
    """The cached list and what was said of it, or None when there is none or any directory in it has changed since."""
    if not cache.is_file():
        return None, []
    stored: dict[str, Any] = json.loads(cache.read_text())
    if stored.get("format") != FORMAT:
        return None, []
    for folder, stamp in stored["folders"].items():
        if not os.path.isdir(folder) or os.stat(folder).st_mtime_ns != stamp:
            return None, []
    return Listing(top, stored["files"], stored["empty"], stored["same"], kind), stored["words"]


def _store(cache: Path, folders: dict[str, int], found: Listing, words: list[str]) -> None:
    content = {"format": FORMAT, "folders": folders, "files": found.files, "words": words}
    text = json.dumps(content | {"empty": found.empty, "same": found.same})
    with contextlib.suppress(OSError):  # a full disk: the folder is then listed again by the next run
        if writable(cache.parent):
            files.write_atomic(cache, text)


def writable(folder: Path) -> bool:
    """Makes `folder` if need be; False where that is not allowed (a read-only home, say): then nothing is cached."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    return True
