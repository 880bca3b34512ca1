"""`data.labels=FILE.csv`: labels of files from a table, one row per file."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.core.task import CLASSES, TEXTS, Reads
from ssl_lightning.data import label_cells
from ssl_lightning.data.broken import counted, named, say
from ssl_lightning.data.folder_scan import IMAGES, Kind
from ssl_lightning.data.label_cells import Labels, in_order

__all__ = ["Labels", "in_order", "read"]

PATHS: tuple[str, ...] = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path")
PATHS += ("image_name", "img", "name", "image_id", "image index", "id")
PATHS += ("audio", "audio_path", "audio_file", "wav", "recording", "clip")
MOST_LINE = 2**20  # characters
MOST_CELLS = 40_000_000


def read(
    file: str | Path,
    root: str,
    files: Sequence[str],
    column: str | Sequence[str] | None = None,
    kind: Kind = IMAGES,
    group: str | None = None,
    reads: Reads = CLASSES,
) -> Labels:
    """The labels of `files`, paths relative to `root`, from a table with a path and one label or more in each row.

    Columns are separated by commas, semicolons or tabs. With a header the column of the paths may stand anywhere, under
    one of the names in `PATHS`; else it is the first. A path is relative to `root`, or absolute, or the name of a file
    with or without its suffix where only one file has it. Several columns of 0 and 1, or labels with "|" between them,
    are several labels for each file; `column` chooses one column by its name, or several, `group` one that is no label.
    With `reads` "several" each file has some of several labels, however many there are; with "numbers" each column is
    a number; with "texts" the one column is taken as it stands.

    Raises:
        UserError: an unreadable table, a column that is not there, several columns that are not 0 and 1, a path with
            two labels, or no path that is one of `files`.
    """
    path = Path(file).expanduser()
    rows, header = _rows(path, set(files) | {name.rpartition("/")[2] for name in files}, root, kind)
    place = _path_column(header)
    beside = None if group is None else _named_column(path, header, group, place, "data.group")
    columns = _label_columns(path, rows, header, place, column, beside)
    _check_columns(path, rows, header, columns, reads)
    found, missing = _by_file(path, rows, place, root, files, kind.word)
    if missing:
        say(f"{path}: paths without {_a(kind.word)} under {root} ({len(missing)}): {named(missing)}.")
    if not found:
        raise UserError(
            f"{path}: none of its {len(rows)} paths is {_a(kind.word)} under {root} ({named([rows[0][place]])} first)"
        )
    bare = [name for name in files if name not in found]
    if bare:
        say(f"{path} has no row for {counted(len(bare), kind.word)} under {root}, used without a label: {named(bare)}.")
    labels = label_cells.meaning(path, found, files, header, columns, reads)
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
        raise UserError(f"{path} is not a table ({error}); save it with a path and a label in each row") from error
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
                raise UserError(f"{path}: line {number} has NUL bytes, so it is not text; save the table as UTF-8")
            yield line


def _path_column(header: list[str]) -> int:
    lowered = [name.lower() for name in header]
    return next((lowered.index(name) for name in PATHS if name in lowered), 0)


def _named_column(path: Path, header: list[str], column: str, place: int, key: str) -> int:
    others = [i for i in range(len(header)) if i != place]
    names = [header[i] for i in others]
    if column not in names:
        what = f"has the columns {named(names, 8)}" if names else "has no header"
        raise UserError(f"{path} {what}, so there is no {key}={column}.{did_you_mean(column, names)}")
    return others[names.index(column)]


def _label_columns(
    path: Path,
    rows: list[list[str]],
    header: list[str],
    place: int,
    column: str | Sequence[str] | None,
    beside: int | None,
) -> list[int]:
    """The columns to read labels from: the named ones, or all but those of the path and the group."""
    if column is not None:
        named_columns = [column] if isinstance(column, str) else list(column)
        if not named_columns or len(set(named_columns)) < len(named_columns):
            what = f"names '{_twice(named_columns)}' twice" if named_columns else "names no column"
            raise UserError(f"data.label_column {what}; name each column of labels once, or leave it out for all")
        return [_named_column(path, header, name, place, "data.label_column") for name in named_columns]
    return [i for i in range(len(rows[0])) if i not in (place, beside)]


def _twice(names: Sequence[str]) -> str:
    return next(name for name, count in Counter(names).items() if count > 1)


def _check_columns(path: Path, rows: list[list[str]], header: list[str], columns: list[int], reads: Reads) -> None:
    """Refuse several columns that do not hold what each of several should."""
    if len(columns) < 2 and reads != "numbers":
        return
    if reads == TEXTS:
        names = [header[i] for i in columns] if header else []
        told = f" ({named(names, 8)})" if names else ""
        raise UserError(
            f"{path} has {len(columns)} columns beside the path{told}, and this task reads one text each; choose it "
            f"with data.label_column={names[-1] if names else 'NAME'}"
        )
    allowed = label_cells.is_number if reads == "numbers" else label_cells.is_yes_or_no
    odd = next(((i, row[i]) for i in columns for row in rows if not allowed(row[i])), None)
    if odd is None:
        return
    where = f"column '{named([header[odd[0]]])}'" if header else f"column {odd[0] + 1}"
    if reads == "numbers":
        raise UserError(
            f"{path}: task=regress reads numbers, and {where} has {named([odd[1]])!r}; choose columns of numbers with "
            "data.label_column=NAME, or [NAME,NAME] for several, or leave task= out for classes"
        )
    names = [header[i] for i in columns] if header else ["NAME"]
    hint = "; task=regress reads numbers" if label_cells.is_number(odd[1]) else ""
    raise UserError(
        f"{path} has several columns beside the path, and {where} holds more than 0 and 1; choose the label with "
        f"data.label_column={names[0]}, or leave only columns of 0 and 1{hint}"
    )


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
