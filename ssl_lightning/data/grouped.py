"""`data.group=`: what must not be on both sides of a split, such as the patient; said by a table, a name, a folder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.data import groups, name_pattern
from ssl_lightning.data.broken import named, say
from ssl_lightning.data.labels import split

FOLDER = "folder"  # the folder that a file lies in is its group


def column_of(group: str | None) -> str | None:
    """The column of a table that `data.group` names; None where it is no column."""
    return None if group in (None, FOLDER) or name_pattern.is_pattern(group) else group


def of_files(group: str, files: Sequence[str], column: Sequence[str] = ()) -> tuple[Tensor, list[str]]:
    """(the number of each file's group (N,) int64, -1 without; the groups' names).

    Args:
        group: `data.group`: "folder", a pattern of the file's path with the field {group}, or a column of the table.
        files: paths below the root, with "/" between the parts.
        column: the cells of that column, one for each file.
    """
    if group == FOLDER:
        return groups.numbered([name.rpartition("/")[0] for name in files])
    if name_pattern.is_pattern(group):
        field = name_pattern.field_of(group, "group", "data.group: group")
        return groups.numbered([found.get(field, "") for found in name_pattern.read(group, files, "data.group")])
    if not column:
        raise UserError(
            f"data.group={group} names a column of a table, but no table is set; set data.labels=FILE.csv, a pattern "
            "such as data.group='{group}_*', or data.group=folder"
        )
    return groups.numbered(column)


def hold_out(
    labels: Tensor,
    found: tuple[Tensor, list[str]] | None,
    test_fraction: float,
    seed: int,
    held_out: str | Sequence[str] | None,
    root: str,
) -> tuple[Tensor, Tensor]:
    """Splits rows into (train, test): groups whole where there are groups, else stratified by label."""
    if found is None:
        return split(labels, test_fraction, seed)
    numbers, names = found
    by_name = [held_out] if isinstance(held_out, str) else held_out
    train, test = groups.group_split(numbers, labels, test_fraction, seed, by_name, names)
    told = [names[i] for i in numbers[test].unique().tolist() if i >= 0]
    say(f"{root}: whole groups held out for evaluation: {named(told, 8)}.")
    return train, test


def check_apart(found: tuple[Tensor, list[str]], first: int) -> None:
    """Raise a UserError where files before and from `first` on share a group."""
    numbers, names = found
    ours, theirs = ({names[i] for i in part.tolist() if i >= 0} for part in (numbers[:first], numbers[first:]))
    fix = "leave data.group out, or let the split be drawn (no train and test folder)"
    groups.check_apart(ours, theirs, fix)


def checked(group: str | None, held_out: str | Sequence[str] | None) -> None:
    """Refuse `held_out` without groups."""
    if held_out is not None and group is None:
        raise UserError("data.held_out needs groups; set data.group to say what they are")


def at(found: tuple[Tensor, list[str]] | None, rows: Tensor) -> tuple[Tensor, list[str]] | None:
    """The groups of some rows."""
    return None if found is None else (found[0][rows], found[1])


def usable(labels: Tensor, found: tuple[Tensor, list[str]] | None, known: Tensor) -> tuple[Tensor, Tensor]:
    """(rows that may be held out, their labels): those with labels, or, in groups, all, for groups stay whole."""
    rows = torch.arange(len(labels)) if found is not None else known.nonzero().flatten()
    return rows, labels[rows]
