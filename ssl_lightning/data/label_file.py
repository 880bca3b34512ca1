"""`data.labels=FILE.csv`: labels of files from a table, one row per file."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.data.broken import counted, named, say
from ssl_lightning.data.folder_scan import IMAGES, Kind

PATHS: tuple[str, ...] = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path")
PATHS += ("image_name", "img", "name", "image_id", "image index", "id")
PATHS += ("audio", "audio_path", "audio_file", "wav", "recording", "clip")
BETWEEN = "|"  # several labels in one cell
YES_NO = frozenset(("0", "1", "0.0", "1.0", "true", "false", "yes", "no", "-1", "-1.0", ""))
YES = frozenset(("1", "1.0", "true", "yes"))
MOST_LINE = 2**20  # characters
MOST_CELLS = 40_000_000
MOST_LABELS, MOST_TARGETS = 2**16, 2**30  # different ones where each image has several, and times the images


@dataclass(frozen=True)
class Labels:
    """Labels of N files: one each (`labels` (N,), -1 without, in `classes`), or several each (`targets` (N, L) of 0
    and 1, -1 in rows without, named `names`). `groups`: the cell of each in the column asked for, "" without; or []."""

    labels: Tensor
    classes: list[str]
    targets: Tensor | None = None
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def known(self) -> Tensor:
        """(N,) bool: which files have labels."""
        return self.labels >= 0 if self.targets is None else self.targets[:, 0] >= 0


def read(
    file: str | Path,
    root: str,
    files: Sequence[str],
    column: str | None = None,
    kind: Kind = IMAGES,
    group: str | None = None,
) -> Labels:
    """The labels of `files`, paths relative to `root`, from a table with a path and one label or more in each row.

    Columns are separated by commas, semicolons or tabs. With a header the column of the paths may stand anywhere, under
    one of the names in `PATHS`; else it is the first. A path is relative to `root`, or absolute, or the name of a file
    with or without its suffix where only one file has it. Several columns of 0 and 1, or labels with "|" between them,
    are several labels for each file; `column` chooses one column by its name, `group` one that is no label.

    Raises:
        UserError: an unreadable table, a column that is not there, several columns that are not 0 and 1, a path with
            two labels, or no path that is one of `files`.
    """
    path = Path(file).expanduser()
    rows, header = _rows(path, set(files) | {name.rpartition("/")[2] for name in files}, root, kind)
    place = _path_column(header)
    beside = None if group is None else _named_column(path, header, group, place, "data.group")
    columns = _label_columns(path, rows, header, place, column, beside)
    found, missing = _by_file(path, rows, place, root, files, kind.word)
    if missing:
        say(f"{path}: paths that are no {kind.word} under {root} ({len(missing)}): {named(missing)}.")
    if not found:
        raise UserError(
            f"{path}: none of its {len(rows)} paths is {_a(kind.word)} under {root} ({named([rows[0][place]])} first)"
        )
    bare = [name for name in files if name not in found]
    if bare:
        say(f"{path} has no row for {counted(len(bare), kind.word)} under {root}, without a label then: {named(bare)}.")
    labels = _labels(path, found, files, header, columns)
    return (
        labels
        if beside is None
        else replace(labels, groups=tuple(found[f][beside] if f in found else "" for f in files))
    )


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeio' else 'a'} {word}"


# ---- reading


def _rows(path: Path, known: set[str], root: str, kind: Kind) -> tuple[list[list[str]], list[str]]:
    """(rows, header); the header is [] where the first row names a file already."""
    if not path.is_file():
        inside = Path(root) / path
        meant = f"did you mean data.labels={inside}?" if inside.is_file() else "give data.labels=FILE.csv"
        raise UserError(f"the table of labels {path.absolute()} does not exist; {meant}")
    rows, cells = [], 0
    try:
        lines = _lines(path)
        first = next(lines, "")
        separator = max(",;\t", key=first.count)
        for row in csv.reader(chain([first], lines), delimiter=separator):
            if any(row):
                rows.append([cell.strip() for cell in row])
                cells += len(row)
                if cells > MOST_CELLS:
                    raise UserError(f"{path} has more than {MOST_CELLS:,} cells; keep the columns that are needed")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as text ({error}); save the table as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path} is no table ({error}); save it with a path and a label in each row") from error
    if not rows:
        raise UserError(f"{path} is empty; give a table with a path and a label in each row")
    width = len(rows[0])
    odd = next((number for number, row in enumerate(rows, 1) if len(row) != width), None)
    if width < 2 or odd is not None:
        what = f"row {odd} has {len(rows[odd - 1])} cells, the first has {width}" if odd else "it has one column"
        raise UserError(f"{path}: {what}; give a path and a label in each row")
    cell = rows[0][0].replace("\\", "/")
    names_file = (
        os.path.splitext(cell)[1].lower() in kind.suffixes
        or cell.removeprefix("./") in known
        or cell.rpartition("/")[2] in known
    )
    stems = {name.rpartition("/")[2].rpartition(".")[0] for name in known}
    has_header = not names_file and (rows[0][0].lower() in PATHS or cell not in stems)
    if has_header and len(rows) == 1:
        raise UserError(f"{path} has a header and no rows; give a path and a label in each row")
    return (rows[1:], rows[0]) if has_header else (rows, [])


def _lines(path: Path) -> Iterator[str]:
    """The lines of a table. Raises UserError for what is none: a line as long as a book, or NUL bytes."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        number = 0
        while line := file.readline(MOST_LINE + 1):
            number += 1
            if len(line) > MOST_LINE:
                raise UserError(f"{path}: line {number} is longer than {MOST_LINE:,} characters; write a row in a line")
            if "\0" in line:
                raise UserError(f"{path}: line {number} has NUL bytes, which no text has; save the table as UTF-8")
            yield line


def _path_column(header: list[str]) -> int:
    lowered = [name.lower() for name in header]
    return next((lowered.index(name) for name in PATHS if name in lowered), 0)


def _named_column(path: Path, header: list[str], column: str, place: int, key: str) -> int:
    others = [i for i in range(len(header)) if i != place]
    names = [header[i] for i in others]
    if column not in names:
        what = f"has the columns {named(names, 8)}" if names else "has no header"
        raise UserError(f"{path} {what}, so {key}={column} is none.{did_you_mean(column, names)}")
    return others[names.index(column)]


def _label_columns(
    path: Path, rows: list[list[str]], header: list[str], place: int, column: str | None, beside: int | None
) -> list[int]:
    """The columns to read labels from: one, or several of 0 and 1."""
    if column is not None:
        return [_named_column(path, header, column, place, "data.label_column")]
    others = [i for i in range(len(rows[0])) if i not in (place, beside)]
    names = [header[i] for i in others] if header else []
    if len(others) > 1:
        odd = next((i for i in others if any(row[i].lower() not in YES_NO for row in rows)), None)
        if odd is not None:
            what = f"column '{named([header[odd]])}'" if header else f"column {odd + 1}"
            raise UserError(
                f"{path} has several columns beside the path, and {what} is not 0 and 1 alone; choose the label with "
                f"data.label_column={(names or ['NAME'])[0]}, or leave only columns of 0 and 1"
            )
    return others


def _by_file(
    path: Path, rows: list[list[str]], place: int, root: str, files: Sequence[str], word: str
) -> tuple[dict[str, list[str]], list[str]]:
    """(the row of each file, paths that are none)."""
    short = _unambiguous(files)
    found: dict[str, list[str]] = {}
    missing, twice = [], []
    for row in rows:
        name = _file_of(row[place], root, short)
        if name is None:
            missing.append(row[place])
        elif found.setdefault(name, row) is not row:
            same = [cell for i, cell in enumerate(found[name]) if i != place] == [
                cell for i, cell in enumerate(row) if i != place
            ]
            if not same:
                raise UserError(f"{path} gives {name} two different labels; leave one row for each {word}")
            twice.append(name)
    if twice:
        say(f"{path}: rows that repeat another ({len(twice)}): {named(twice)}.")
    return found, missing


def _unambiguous(files: Sequence[str]) -> dict[str, str | None]:
    """Each file by its path, and by its name and its name without suffix where no other has it (else None)."""
    short: dict[str, str | None] = {}
    for with_suffix in (False, True):
        names = [name.rpartition("/")[2] for name in files]
        names = names if with_suffix else [name.rpartition(".")[0] for name in names]
        counts = Counter(names)
        for name, full in zip(names, files, strict=True):
            short[name] = full if counts[name] == 1 else None
    return short | {name: name for name in files}


def _file_of(cell: str, root: str, short: dict[str, str | None]) -> str | None:
    cell = cell.replace("\\", "/").removeprefix("./")
    cell = cell.removeprefix(root.rstrip("/") + "/")
    if ".." in cell.split("/"):  # back into the root, or out of it
        inside, full = (os.path.normpath(path) for path in (root, os.path.join(root, cell)))
        return short.get(os.path.relpath(full, inside))
    return short.get(cell) or (short.get(cell.rpartition("/")[2]) if "/" in cell else None)


# ---- labels


def _labels(
    path: Path, found: dict[str, list[str]], files: Sequence[str], header: list[str], columns: list[int]
) -> Labels:
    if len(columns) > 1:
        names = tuple(header[i] for i in columns) if header else tuple(str(i) for i in range(len(columns)))
        ones = {f: [n for n, i in enumerate(columns) if row[i].lower() in YES] for f, row in found.items()}
        return _several(path, ones, files, names)
    cells = {name: row[columns[0]] for name, row in found.items()}
    if any(BETWEEN in cell for cell in cells.values()):
        different: set[str] = set()
        for cell in cells.values():
            different |= _parts(cell)
            _check_several(path, len(different), len(files))
        names = tuple(in_order(different))
        place = {name: i for i, name in enumerate(names)}
        return _several(path, {f: [place[n] for n in _parts(cell)] for f, cell in cells.items()}, files, names)
    classes = in_order({cell for cell in cells.values() if cell})
    if not classes:
        raise UserError(f"{path} has no label in its rows; give a path and a label in each")
    number = {name: label for label, name in enumerate(classes)}
    return Labels(torch.tensor([number.get(cells.get(name, ""), -1) for name in files]), classes)


def _parts(cell: str) -> set[str]:
    return {part.strip() for part in cell.split(BETWEEN)} - {""}


def _check_several(path: Path, labels: int, images: int) -> None:
    """Refuse a table of labels by images that would fill the memory."""
    most = min(MOST_LABELS, MOST_TARGETS // max(images, 1))
    if labels > most:
        raise UserError(
            f"{path} has more than {most:,} different labels for {counted(images)}, several for each; leave those that "
            "are needed, or give one label for each image"
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
