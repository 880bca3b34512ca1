"""A look at images before a training: sizes, modes, broken files, and images that are there twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.finding import Finding
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import counted, named
from ssl_lightning.data.folder_scan import list_images
from ssl_lightning.modalities.image.images import BROKEN, decode
from ssl_lightning.modalities.image.pixels import is_deep, opened

MOST = 20_000  # images that are looked at, evenly spread
SIDE = 16  # of the thumbnails that are compared
BITS, APART = 3, 4.0  # of 64 that may differ in the hash, and levels of 255 by which thumbnails may, in near copies
Item = tuple[str, str]  # its name and its split
CROWD = 60  # images of one hash that are compared with each other; more are plain surfaces


@dataclass
class Look:
    """One image: its name, the split it is in, its height and width, what it is stored as, and what it is told by.

    `digest` is of what is no file; of files all are compared.
    """

    name: str
    split: str
    size: tuple[int, int]
    mode: str
    digest: bytes
    thumbnail: np.ndarray  # (SIDE, SIDE, 3) float32

    @property
    def hash(self) -> int:
        """64 bits: is a place of the grey picture brighter than its right neighbour?"""
        grey = self.thumbnail.mean(2)
        small = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BILINEAR))
        return int("".join("01"[int(bit)] for bit in (small[:, 1:] > small[:, :-1]).flatten()), 2)


def look(data: DataModule, seconds: float) -> list[Finding]:
    """What is to be said of the images of `data`, after a look of about so many `seconds`."""
    names = _files(data)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(MOST, len(names))).astype(int)]
    np.random.Generator(np.random.PCG64(0)).shuffle(chosen)  # type: ignore[arg-type]  # where time ends it is spread still
    found, broken, end = list[Look](), list[str](), time.perf_counter() + seconds
    for name, split in chosen:
        if time.perf_counter() > end:
            break
        try:
            found.append(_looked(data, name, split))
        except BROKEN:
            broken.append(str(name))
    if not found:
        return [Finding("data", "bad", "no image can be decoded", "look at the files")]
    seen = f"{counted(len(found))} looked at" + (
        "" if len(found) + len(broken) == len(names) else f" of {len(names):,}"
    )
    if len(found) + len(broken) < len(names):
        seen += " (stage.seconds= for more)"
    files = [(name, split) for name, split in names if isinstance(name, str)]
    short = _within(str(getattr(data, "root", None) or "."))
    lines = [*_sizes(found, data, seen), *_modes(found, data), *_broken(list(map(short, broken)), len(names))]
    return [*lines, *_twice(files, found, short, _classes(data))]


def _files(data: Any) -> list[tuple[str | int, str]]:
    """(path, or row where there is no file, split) of each image; broken files that were left out are among them."""
    sets = {"train": data.train_set, "test": data.test_set}
    if all(part.paths is not None for part in sets.values()):
        known = {path: split for split, part in sets.items() for path in part.paths}
        try:
            listed = list_images(data.root).paths() if getattr(data, "root", None) else []
        except UserError:
            listed = []
        return [(path, known.get(path, "neither")) for path in dict.fromkeys([*known, *listed])]
    return [(row, split) for split, part in sets.items() for row in range(len(part))]


def _looked(data: Any, name: str | int, split: str) -> Look:
    if isinstance(name, int):
        pixels = (data.train_set if split == "train" else data.test_set).image(name).cpu()
        digest = hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest()
        shape = (pixels.shape[0], pixels.shape[1])
        return Look(f"image {name} of {split}", split, shape, "array", digest, _thumbnail(pixels))
    mode, size, quick = _header(name)
    pixels = quick if quick is not None and data.channels == 3 else decode(name, data.channels, data.value_range)
    sides = size or (pixels.shape[0], pixels.shape[1])
    return Look(name, split, sides, mode, b"", _thumbnail(pixels))


def _header(path: str) -> tuple[str, tuple[int, int] | None, torch.Tensor | None]:
    """(the word for what it is stored as, height and width, the pixels of a JPEG at an eighth of its size or more)."""
    try:
        with opened(path) as image:
            words = {"L": "grey", "1": "grey", "P": "palette"}
            mode, size = words.get(image.mode, image.mode), (image.height, image.width)
            if image.format != "JPEG":
                return "more than 8 bits" if is_deep(path) else mode, size, None
            image.draft("RGB", (4 * SIDE, 4 * SIDE))  # whole in its entropy coding: a truncated file fails
            return mode, size, torch.from_numpy(np.array(image.convert("RGB")))
    except UnidentifiedImageError:  # an array, or a file beyond PIL
        return "array", None, None


def _thumbnail(pixels: torch.Tensor) -> np.ndarray:
    x = pixels.permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    shown = small[..., :3] if small.shape[2] >= 3 else small[..., :1].expand(-1, -1, 3)
    return shown.contiguous().numpy()


def _exact_copies(paths: Sequence[Item], found: Sequence[Look]) -> list[list[Item]]:
    """Groups of items that are the same: of files all of them, told by their sizes first."""
    same = defaultdict[Any, list[Item]](list)
    for look in found:
        if look.digest:
            same[look.digest].append((look.name, look.split))
    sizes = defaultdict[int, list[Item]](list)
    for name, split in paths:
        with contextlib.suppress(OSError):
            sizes[os.stat(name).st_size].append((name, split))
    for files in sizes.values():
        for name, split in files if len(files) > 1 else ():
            with contextlib.suppress(OSError), open(name, "rb") as file:
                same[hashlib.file_digest(file, "blake2b").digest()].append((name, split))
    return [sorted(group) for group in same.values() if len(group) > 1]


def _sizes(found: Sequence[Look], data: Any, seen: str) -> Iterator[Finding]:
    sides = np.array([min(look.size) for look in found])
    low, middle, high = (int(x) for x in np.percentile(sides, (5, 50, 95)))
    wide = float(np.mean([max(look.size) > 2 * min(look.size) for look in found]))
    spread = f"all {middle}" if low == high else f"mostly {low} to {high}, half of them up to {middle}"
    yield Finding("data", "ok", f"{seen}; shorter sides in pixels: {spread}")
    small, size = float(np.mean(sides < data.image_size)), data.image_size
    if small > 0.05:
        side = max(8, int(np.percentile(sides, 10)) // 8 * 8)
        fix = f"data.image_size={side} costs less and loses nothing"
        yield Finding("data", "watch", f"{small:.0%} are smaller than data.image_size={size} and are enlarged", fix)
    elif middle > 4 * size:
        fix = "a larger data.image_size keeps small things; smaller copies of the files load faster"
        yield Finding("data", "watch", f"images are {middle / size:.0f} times as large as data.image_size={size}", fix)
    if wide > 0.05:
        fix = "evaluation sees the middle square; cut long images up where that loses what matters"
        yield Finding("data", "watch", f"{wide:.0%} are more than twice as long as wide", fix)


def _modes(found: Sequence[Look], data: Any) -> Iterator[Finding]:
    modes = Counter(look.mode for look in found if look.mode != "array")
    if not modes:
        return
    told = ", ".join(f"{mode} {count}" for mode, count in modes.most_common())
    if len(modes) == 1:
        yield Finding("data", "ok", f"stored alike: {told}")
        return
    both = {"grey", "RGB"} <= modes.keys() and data.channels == 3
    fix = "a network can tell grey images by their lack of colour; data.channels=1 makes all grey" if both else ""
    deep = modes.get("more than 8 bits", 0)
    fix = "images of 8 bits and deeper ones are scaled differently; convert them to one kind" if deep else fix
    rare = modes.most_common(1)[0][1] > 0.99 * len(found) and not deep
    yield Finding("data", "ok" if rare or not fix else "watch", f"stored in several ways: {told}", "" if rare else fix)


def _broken(broken: Sequence[str], count: int) -> Iterator[Finding]:
    if not broken:
        yield Finding("data", "ok", "all that were looked at can be decoded")
        return
    many = len(broken) > max(1.0, 0.01 * count)
    fix = "the run stops above 1 %" if many else "they are skipped"
    what = f"{counted(len(broken), 'file')} that cannot be decoded: {named(sorted(broken), 5)}"
    yield Finding("data", "bad" if many else "watch", what, f"{fix}; remove or repair them")


# ---- images that are there twice ------------------------------------------------------------------------------------


def _within(root: str) -> Callable[[str], str]:
    """A path as it is under the folder of the data."""
    inside = f"{os.path.abspath(os.path.expanduser(root))}/"
    return lambda path: path.removeprefix(inside)


def _classes(data: DataModule) -> dict[str, str]:
    """The class of each file that has one."""
    known: dict[str, str] = {}
    for part in (data.train_set, data.test_set):
        for path, label in zip(part.paths or (), part.labels.tolist(), strict=False):
            if 0 <= label < len(part.classes):
                known[path] = part.classes[label]
    return known


def _torn(groups: Sequence[Sequence[Item]], short: Callable[[str], str], known: Mapping[str, str]) -> Iterator[Finding]:
    """Copies in different classes: one of the labels is wrong."""
    torn = [group for group in groups if len({known[name] for name, _ in group if name in known}) > 1]
    if torn:
        told = [" = ".join(f"{short(name)} ({known.get(name, '')})" for name, _ in group[:2]) for group in torn]
        what = f"{counted(len(torn), 'case')} of one image in two classes: {named(told)}"
        yield Finding("data", "watch", what, "one of the two labels is wrong")


def _twice(
    files: Sequence[Item], found: Sequence[Look], short: Callable[[str], str], known: Mapping[str, str]
) -> Iterator[Finding]:
    copies = _exact_copies(files, found)
    again = {name for group in copies for name, _ in group[1:]}
    near = [[(x.name, x.split) for x in pair] for pair in near_copies([x for x in found if x.name not in again])]
    yield from _torn([*copies, *near], short, known)
    copies, near = ([[(short(name), split) for name, split in group] for group in some] for some in (copies, near))
    yield from _leaks("the same file", copies)
    yield from _leaks("nearly the same image", near)
    if copies:
        extra = sum(len(group) - 1 for group in copies)
        what = f"{extra} exact cop{'y' if extra == 1 else 'ies'} of other images: {_pairs(copies, '=')}"
        yield Finding("data", "watch", what, "keep one of each: as negatives of each other they are wrong")
    if near:
        what = f"{counted(len(near), 'pair')} of images that are nearly the same: {_pairs(near, '~')}"
        yield Finding("data", "watch", what, "look at some; frames of one film belong in one group (data.group=)")
    if not copies and not near:
        yield Finding("data", "ok", "no image is there twice, nor nearly")


def _pairs(groups: Sequence[Sequence[Item]], sign: str) -> str:
    return named([f"{group[0][0]} {sign} {group[1][0]}" for group in groups])


def _leaks(what: str, groups: Sequence[Sequence[Item]]) -> Iterator[Finding]:
    """Images of the evaluation split that are trained on, too."""
    leaks = [
        [next(x for x in group if x[1] == split) for split in ("train", "test")]
        for group in groups
        if {"train", "test"} <= {split for _, split in group}
    ]
    if leaks:
        told = f"{counted(len(leaks), 'case')} of {what} in training and evaluation: {_pairs(leaks, '=')}"
        yield Finding("data", "bad", told, "results will look too good; remove them from one side")


def near_copies(looks: Sequence[Look]) -> list[tuple[Look, Look]]:
    """Pairs whose hashes differ in at most `BITS` of 64 and whose thumbnails by `APART` levels on average.

    Two hashes that differ in three bits have one of four quarters in common, so only those are compared.
    """
    hashes = [look.hash for look in looks]
    pairs = set[tuple[int, int]]()
    for shift in range(0, 64, 16):
        buckets = defaultdict[int, list[int]](list)
        for i, value in enumerate(hashes):
            buckets[value >> shift & 0xFFFF].append(i)
        for bucket in buckets.values():
            for i, j in combinations(bucket[:CROWD], 2):
                if (hashes[i] ^ hashes[j]).bit_count() <= BITS:
                    pairs.add((i, j))
    close = [(looks[i], looks[j]) for i, j in sorted(pairs) if _distance(looks[i], looks[j]) <= APART]
    return [pair for pair in close if min(look.thumbnail.std() for look in pair) > APART]  # not of plain surfaces


def _distance(one: Look, other: Look) -> float:
    return float(np.abs(one.thumbnail - other.thumbnail).mean())
