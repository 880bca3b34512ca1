"""Are two runs equal? File by file, bit by bit; of tables and results without what measures time or memory."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from ssl_lightning.runs.folder import decisive

# What is measured, not computed: it differs from one run to the next on the same machine.
TIMES = ("images_per_second", "samples_per_second", "seconds", "memory_mb", "peak_memory_mb")
# A log of words and times; the event files of TensorBoard hold the time of each row; a page says when it was made.
IGNORED = ("*.log", "*.txt", "events.out.tfevents.*", "report.html")
SHOWN = 5  # differences of one file


def differences(one: Path, two: Path) -> list[str]:
    """What two run folders differ in, a line each; empty: they are equal."""
    left, right = _files(one), _files(two)
    found = [f"{name}: only in {one}" for name in sorted(left - right)]
    found += [f"{name}: only in {two}" for name in sorted(right - left)]
    for name in sorted(left & right):
        found += [f"{name}: {line}" for line in _compare(one / name, two / name)]
    return found


def assert_equal_runs(one: Path, two: Path) -> None:
    """Fails with the differences."""
    found = differences(one, two)
    assert not found, "\n".join(found)


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """A nested structure as {path: leaf}; an empty container is a leaf."""
    if isinstance(value, dict) and value:
        items = [(f"{name}.{k}", v) for k, v in value.items()]
    elif isinstance(value, list | tuple) and value:
        items = [(f"{name}.{i}", v) for i, v in enumerate(value)]
    else:
        return {name: value}
    return {path: leaf for key, child in items for path, leaf in leaves(child, key).items()}


def is_time(name: str) -> bool:
    """Whether `name`, a column or the dotted path of a leaf, is a measurement of time or memory."""
    return name.rsplit(".", 1)[-1].rsplit("/", 1)[-1] in TIMES


def _files(folder: Path) -> set[str]:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {file.as_posix() for file in files if not any(file.match(pattern) for pattern in IGNORED)}


def _compare(one: Path, two: Path) -> list[str]:
    readers: dict[str, Callable[[Path], dict[str, Any]]] = {
        ".ckpt": lambda path: leaves(torch.load(path, map_location="cpu", weights_only=True)),
        ".csv": _table,
        ".npz": _kept,
        ".json": lambda path: leaves(json.loads(path.read_text())),
        ".yaml": lambda path: decisive(yaml.safe_load(path.read_text())),
    }
    if one.read_bytes() == two.read_bytes():
        return []
    reader = readers.get(one.suffix)
    if reader is None:
        return ["the bytes differ"]
    left, right = ({k: v for k, v in reader(path).items() if not is_time(k)} for path in (one, two))
    lines = [
        f"{key}: {_short(left.get(key))} / {_short(right.get(key))}"
        for key in dict.fromkeys([*left, *right])
        if (key in left) != (key in right) or not same(left[key], right[key])
    ]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _table(path: Path) -> dict[str, Any]:
    """Cells by row and column; the header, in its order, is a cell of its own."""
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file))
    columns = {"header": header}
    return columns | {f"row {i}.{name}": cell for i, row in enumerate(rows) for name, cell in zip(header, row)}


def _kept(path: Path) -> dict[str, Any]:
    """Arrays by name; of what a page is told in words all but how the command was typed."""
    found = {}
    with np.load(path, allow_pickle=False) as stored:
        for name in stored.files:
            told = name == "about" and path.name == "report.npz"
            found[name] = json.loads(str(stored[name])) if told else stored[name].tolist()
    if isinstance(found.get("about"), dict):
        found["about"].pop("command", None)
    return leaves(found)


def same(one: Any, two: Any) -> bool:
    """Bitwise: NaN equals NaN, and 0.0 is not -0.0; dtype and shape count."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if (one.dtype, one.shape) != (two.dtype, two.shape):
            return False
        flat = [x.detach().contiguous().reshape(-1).view(torch.uint8) if x.numel() else x for x in (one, two)]
        return torch.equal(*flat)
    return type(one) is type(two) and (one == two or (one != one and two != two))


def _short(value: Any) -> str:
    text = f"{tuple(value.shape)} {value.flatten()[:3].tolist()}" if isinstance(value, Tensor) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
