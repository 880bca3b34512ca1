"""A look at recordings before a training: durations, rates, broken and silent files, and what is there twice."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.finding import Finding
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import counted, named
from ssl_lightning.data.folder_scan import list_files
from ssl_lightning.modalities.audio import reading

MOST = 20_000  # recordings that are looked at, evenly spread


@dataclass
class Look:
    """One recording: its name, the split it is in, seconds, rate, and what it is told by."""

    name: str
    split: str
    seconds: float
    rate: int
    digest: bytes


def look(data: DataModule, seconds: float) -> list[Finding]:
    """What is to be said of the recordings of `data`, after a look of about so many `seconds`."""
    names = _files(data)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(MOST, len(names))).astype(int)]
    np.random.Generator(np.random.PCG64(0)).shuffle(chosen)  # type: ignore[arg-type]
    found, broken, silent, end = list[Look](), list[str](), list[str](), time.perf_counter() + seconds
    for name, split in chosen:
        if time.perf_counter() > end:
            break
        try:
            found.append(_looked(data, name, split))
        except reading.Silent:
            silent.append(str(name))
        except reading.BROKEN:
            broken.append(str(name))
    if not found:
        return [Finding("data", "bad", "no recording can be used", "look at the files")]
    count = len(found) + len(broken) + len(silent)
    seen = f"{counted(len(found), 'recording')} looked at" + ("" if count == len(names) else f" of {len(names):,}")
    root = getattr(getattr(data, "recordings", None), "root", None) or "."
    inside = f"{os.path.abspath(os.path.expanduser(root))}/"
    found = [replace(one, name=one.name.removeprefix(inside)) for one in found]
    broken, silent = ([name.removeprefix(inside) for name in names] for names in (broken, silent))
    unusable = [*_unusable(broken, "cannot be decoded or are empty"), *_unusable(silent, "are silent")]
    if not unusable:
        unusable = [Finding("data", "ok", "every file that was looked at can be decoded, and none is silent")]
    return [*_lengths(found, data, seen), *_rates(found, data), *unusable, *_twice(found)]


def _files(data: Any) -> list[tuple[str | int, str]]:
    sets = {"train": data.train_set, "test": data.test_set}
    if all(part.paths is not None for part in sets.values()):
        known = {path: split for split, part in sets.items() for path in part.paths}
        root = getattr(getattr(data, "recordings", None), "root", None)
        try:
            listed = list_files(root, reading.RECORDINGS).paths() if root else []
        except UserError:
            listed = []
        return [(path, known.get(path, "neither")) for path in dict.fromkeys([*known, *listed])]
    return [(row, split) for split, part in sets.items() for row in range(len(part))]


def _looked(data: Any, name: str | int, split: str) -> Look:
    if isinstance(name, int):
        clip = (data.train_set if split == "train" else data.test_set).clip(name)
        digest = hashlib.blake2b(clip.numpy().tobytes()).digest()
        return Look(f"recording {name} of {split}", split, len(clip) / data.sample_rate, data.sample_rate, digest)
    with reading.opened(name) as sound:
        rate, seconds = sound.samplerate, sound.frames / sound.samplerate
    reading.read(name, data.sample_rate, max(1, round(60 * data.sample_rate)))
    with open(name, "rb") as file:
        return Look(name, split, seconds, rate, hashlib.file_digest(file, "blake2b").digest())


def _lengths(found: Sequence[Look], data: Any, seen: str) -> Iterator[Finding]:
    lengths = np.array([look.seconds for look in found])
    low, middle, high = np.percentile(lengths, (5, 50, 95))
    total = lengths.sum()
    told = f"{total / 3600:.1f} hours" if total > 3600 else f"{total / 60:.0f} minutes"
    what = f"{seen}, {told}; mostly {low:.2g} to {high:.2g} s, half of them up to {middle:.2g} s"
    yield Finding("data", "ok", what)
    view = data.length / data.sample_rate
    if (short := float(np.mean(lengths < 0.5 * view))) > 0.2:
        step = max(1, round(float(middle) * 100)) * data.sample_rate // 100
        fix = f"data.length={step} is half of them"
        yield Finding(
            "data", "watch", f"{short:.0%} fill less than half of a view of {view:.2g} s; the rest is zeros", fix
        )
    elif middle > 20 * view:
        fix = "a larger data.length lets a view hold more of a recording"
        yield Finding("data", "watch", f"a view of {view:.2g} s is a small part of a recording of {middle:.0f} s", fix)


def _rates(found: Sequence[Look], data: Any) -> Iterator[Finding]:
    rates = Counter(look.rate for look in found)
    told = ", ".join(f"{rate} Hz {count}" for rate, count in rates.most_common(5))
    low = sum(count for rate, count in rates.items() if rate < data.sample_rate) / len(found)
    if low > 0.05:
        fix = f"data.sample_rate={rates.most_common(1)[0][0]} gives the network no empty bands"
        yield Finding(
            "data", "watch", f"{low:.0%} have a lower rate than data.sample_rate={data.sample_rate}: {told}", fix
        )
    elif len(rates) > 1:
        fix = "they are resampled; a class that always has one rate can be recognised by it"
        yield Finding("data", "watch", f"rates differ: {told}", fix)
    else:
        yield Finding("data", "ok", f"one rate: {told}")


def _unusable(names: Sequence[str], fault: str) -> list[Finding]:
    if not names:
        return []
    what = f"{counted(len(names), 'file')} that {fault}: {named(sorted(names), 5)}"
    return [Finding("data", "watch", what, "they are left out, and the run stops above 1 %; remove or repair them")]


def _twice(found: Sequence[Look]) -> Iterator[Finding]:
    same = defaultdict[bytes, list[Look]](list)
    for look in found:
        same[look.digest].append(look)
    copies = [looks for looks in same.values() if len(looks) > 1]
    names = [" = ".join(sorted(x.name for x in looks)[:2]) for looks in copies]
    leaks = [name for name, looks in zip(names, copies, strict=True) if {"train", "test"} <= {x.split for x in looks}]
    if leaks:
        what = f"{counted(len(leaks), 'recording')} both trained on and evaluated on: {named(leaks)}"
        yield Finding("data", "bad", what, "results will look too good; remove them from one side")
    if copies:
        what = f"{counted(len(copies), 'recording')} there more than once: {named(names)}"
        yield Finding("data", "watch", what, "keep one of each")
    else:
        yield Finding("data", "ok", "no recording is there twice")
