"""What the cells of a table of labels mean: a class, several labels, numbers, or a text."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import CLASSES, TEXTS, Reads
from ssl_lightning.data.broken import counted, named, say

BETWEEN = "|"  # several labels in one cell
YES_NO = frozenset(("0", "1", "0.0", "1.0", "true", "false", "yes", "no", "-1", "-1.0", ""))
YES = frozenset(("1", "1.0", "true", "yes"))
MOST_LABELS, MOST_TARGETS = 2**16, 2**30  # different ones where each image has several, and times the images


@dataclass(frozen=True)
class Labels:
    """Labels of N files: one each (`labels` (N,), -1 without, in `classes`), or several each (`targets` (N, L), int8
    of 0 and 1, -1 in rows without, or float32, NaN in those, named `names`). `groups`: the cell of each in the column
    asked for, "" without; or []."""

    labels: Tensor
    classes: list[str]
    targets: Tensor | None = None
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def known(self) -> Tensor:
        """(N,) bool: which files have labels."""
        if self.targets is None:
            return self.labels >= 0
        return ~self.targets.isnan().any(dim=1) if self.targets.is_floating_point() else self.targets[:, 0] >= 0


def meaning(
    path: Path,
    found: dict[str, list[str]],
    files: Sequence[str],
    header: list[str],
    columns: list[int],
    reads: Reads = CLASSES,
) -> Labels:
    """What the cells of some columns say of `files`: `found` has the row of each file that has one."""
    if reads == "numbers":
        return _numbers(path, found, files, header, columns)
    one = columns[0]
    if len(columns) > 1 or (reads == "several" and header and all(is_yes_or_no(row[one]) for row in found.values())):
        names = tuple(header[i] for i in columns) if header else tuple(str(i) for i in range(len(columns)))
        ones = {f: [n for n, i in enumerate(columns) if row[i].lower() in YES] for f, row in found.items()}
        return _several(path, ones, files, names)
    cells = {name: row[columns[0]] for name, row in found.items()}
    if reads != TEXTS:
        _check_numbers(path, set(cells.values()) - {""}, len(files))
    if reads == "several" or (reads != TEXTS and any(BETWEEN in cell for cell in cells.values())):
        different: set[str] = set()
        for cell in cells.values():
            different |= _parts(cell)
            _check_several(path, len(different), len(files))
        names = tuple(in_order(different))
        place = {name: i for i, name in enumerate(names)}
        return _several(path, {f: [place[n] for n in _parts(cell)] for f, cell in cells.items()}, files, names)
    classes = in_order({cell for cell in cells.values() if cell})
    if not classes:
        raise UserError(f"no row of {path} has a label; write a path and a label in each row")
    number = {name: label for label, name in enumerate(classes)}
    return Labels(torch.tensor([number.get(cells.get(name, ""), -1) for name in files]), classes)


def _check_numbers(path: Path, different: set[str], files: int) -> None:
    """Refuse what is read as names and is a measurement."""
    if (
        len(different) > max(2, files // 2)
        and any("." in name for name in different)
        and all(map(is_number, different))
    ):
        fix = "add task=regress to read them as numbers, or choose another column with data.label_column=NAME"
        raise UserError(
            f"{path}: its labels are numbers, nearly all of them different ({named(sorted(different))}); {fix}"
        )


def is_yes_or_no(cell: str) -> bool:
    """Is this what stands for 0 or 1, or nothing at all?"""
    return cell.lower() in YES_NO


def is_number(cell: str) -> bool:
    """Is this a finite number, or nothing at all?"""
    try:
        return not cell or math.isfinite(float(cell))
    except ValueError:
        return False


def _numbers(
    path: Path, found: dict[str, list[str]], files: Sequence[str], header: list[str], columns: list[int]
) -> Labels:
    """Numbers of each file; a row in which one is missing is as good as none."""
    bare = [file for file, row in found.items() if any(not row[i] for i in columns)]
    if len(bare) == len(found):
        raise UserError(f"{path} has no row with a number in each column; give a path and numbers in each row")
    if bare:
        say(f"{path}: rows that lack a number, used without a label ({len(bare)}): {named(bare)}.")
    targets = torch.full((len(files), len(columns)), torch.nan)
    for n, file in enumerate(files):
        if file in found and all(found[file][i] for i in columns):
            targets[n] = torch.tensor([float(found[file][i]) for i in columns])
    if bool(targets.isinf().any()):
        raise UserError(f"{path} has a number too large for 32 bits; give smaller ones, in another unit say")
    names = tuple(header[i] for i in columns) if header else tuple(str(i) for i in range(len(columns)))
    return Labels(torch.full((len(files),), -1), [], targets, names)


def _parts(cell: str) -> set[str]:
    return {part.strip() for part in cell.split(BETWEEN)} - {""}


def _check_several(path: Path, labels: int, images: int) -> None:
    """Refuse a table of labels by images that would fill the memory."""
    most = min(MOST_LABELS, MOST_TARGETS // max(images, 1))
    if labels > most:
        raise UserError(
            f"{path} has more than {most:,} different labels for {counted(images, 'image')}, several per image; keep "
            "only the labels you need, or give one label per image"
        )


def _several(path: Path, ones: dict[str, list[int]], files: Sequence[str], names: tuple[str, ...]) -> Labels:
    """From the numbers of each image's labels; an image that is not in `ones` has no row."""
    _check_several(path, len(names), len(files))
    targets = np.full((len(files), len(names)), -1, np.int8)
    for row, file in zip(targets, files, strict=True):
        if file in ones:
            row[:] = 0
            row[ones[file]] = 1
    return Labels(torch.full((len(files),), -1), [], torch.from_numpy(targets), names)


def in_order(names: Iterable[str]) -> list[str]:
    """Sorted: as numbers where all are, as words otherwise."""
    found = list(names)
    whole = all(name.removeprefix("-").isdecimal() and len(name) < 100 for name in found)
    return sorted(found, key=lambda name: (int(name), name)) if whole else sorted(found)
