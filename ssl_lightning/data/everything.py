"""All files under a folder, whatever its layout, and what is known of their labels: what `stage=predict` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Reads
from ssl_lightning.data import label_file, name_pattern
from ssl_lightning.data.folder_scan import Listing
from ssl_lightning.data.layout import TEST, TRAIN, VALIDATION

UNKNOWN = -1


@dataclass(frozen=True)
class Everything:
    """N files.

    Attributes:
        root: the folder they lie in.
        names: of the files, relative to it, with "/" between the parts.
        paths: of the files.
        targets: (N,) classes or (N, T) targets from a table or the files' names, -1 or NaN for none; None: no such.
        target_names: what these are named.
        by_folder: whether the folder that a file lies in may say its class.
    """

    root: str
    names: list[str]
    paths: list[str]
    targets: Tensor | None = None
    target_names: tuple[str, ...] = ()
    by_folder: bool = False


def read(listing: Listing, labels: bool | str | None, column: str | Sequence[str] | None, reads: Reads) -> Everything:
    """All files of a listing, with the labels that `data.labels` tells of them.

    Raises:
        UserError: a table or a pattern that does not fit these files.
    """
    names, paths = listing.files, listing.paths()
    if not isinstance(labels, str):
        return Everything(listing.root, names, paths, by_folder=labels is not False)
    if name_pattern.is_pattern(labels):
        found = [fields["label"] if fields else None for fields in name_pattern.read(labels, names)]
        classes = sorted({label for label in found if label is not None})
        number = {label: i for i, label in enumerate(classes)}
        targets = torch.tensor([UNKNOWN if label is None else number[label] for label in found])
        return Everything(listing.root, names, paths, targets, tuple(classes))
    try:
        told = label_file.read(labels, listing.root, names, column, listing.kind, None, reads)
    except UserError as error:
        raise UserError(f"{error}; to predict without labels, set data.labels=false") from error
    if told.targets is None:
        return Everything(listing.root, names, paths, told.labels, tuple(told.classes))
    targets = told.targets
    if not targets.is_floating_point():
        targets = targets.float().masked_fill(targets < 0, torch.nan)
    return Everything(listing.root, names, paths, targets, tuple(told.names))


def by_folder(names: Sequence[str], classes: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """(the class (N,) of each file by the folders it lies in, -1 for none; the names of these classes).

    The class is the first folder, or the first within a folder of a split (`train/`, `test/`); folders that all files
    lie in and that are no class are passed over.
    """
    known, folders = set(classes), [name.split("/")[:-1] for name in names]
    while folders and folders[0] and all(parts[:1] == folders[0][:1] for parts in folders):
        if folders[0][0] in known:
            break
        folders = [parts[1:] for parts in folders]
    found = [_class_of(parts, known) for parts in folders]
    there = sorted({name for name in found if name})
    number = {name: i for i, name in enumerate(there)}
    return torch.tensor([number[name] if name else UNKNOWN for name in found], dtype=torch.int64), tuple(there)


def _class_of(parts: list[str], known: set[str]) -> str:
    if not parts or parts[0] in known:
        return parts[0] if parts else ""
    split = parts[0].lower() in (*TRAIN, *TEST, *VALIDATION)
    return (parts[1] if len(parts) > 1 else "") if split else parts[0]
