"""`data=folder`: a folder of your own images, with or without labels, of any size, mode and depth."""

from collections.abc import Sequence
from os.path import realpath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import MASKS
from ssl_lightning.data import everything, grouped, label_file, layout
from ssl_lightning.data.broken import WholeSet, counted, say
from ssl_lightning.data.everything import Everything
from ssl_lightning.data.folder_scan import Listing, list_images
from ssl_lightning.data.labelled import shares
from ssl_lightning.modalities.image import mask_folder, ranges
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.decode_cache import decoded_once
from ssl_lightning.modalities.image.described import opening
from ssl_lightning.modalities.image.images import BROKEN, FileImages, ImageSet

FEW = 50  # files of a set that are looked at one by one before some are held out


class Folder(DataModule):
    """Images under one folder. These layouts are understood:

    - `train/` and `test/` (or `validation/`, `val/`), each with one folder per class, or without classes;
    - one folder per class, from which a seeded stratified tenth is held out for evaluation;
    - images alone, directly or nested: unlabelled, a seeded tenth held out;
    - any of these with labels from a table, `labels=FILE.csv` (see `label_file.read`).

    Where both `test/` and `validation/` stand, `test/` is evaluated on if it has labels or neither has. What lies
    beside class folders is named and left out. Where there is no image file, `.npy` files of one image each are taken.

    Args:
        root: the folder.
        probe_root: a labelled folder for probes and kNN, in one of the first two layouts; then all of `root`'s
            training images are pretrained on, and results are reported on `probe_root`'s evaluation split.
        labels: False ignores class folders; True takes the first folder of each path as its class, at any depth;
            None decides by the layout; a text is the path of a table.
        test_fraction: share held out where there is no evaluation folder.
        train, test: the folders to train and to evaluate on, by name under `root` (`probe_root` if given) or by path.
        label_column: the column of the table that holds the label, or several; None: the only one, several of 0 and 1,
            or, with task=regress, all, of numbers.
        value_range: [lowest, highest] value, which become 0 and 255; None: bytes as they are, deeper images by the
            range that the set uses (`ranges.of_files`).
        group: what must not be in both splits, such as the patient: a column of the table, a pattern of the file's path
            with the field {group}, such as "{group}_*", or "folder", the folder that a file lies in.
        held_out: groups to evaluate on, by name; None: as many as make `test_fraction`.
        masks: a folder of masks for stage=segment, each of its image's name: class numbers, or a palette.
        loading: see `DataModule`.
    """

    annotated = (MASKS,)

    def __init__(
        self,
        root: str | Path | None = None,
        probe_root: str | Path | None = None,
        labels: bool | str | None = None,
        test_fraction: float = 0.1,
        train: str | None = None,
        test: str | None = None,
        label_column: str | Sequence[str] | None = None,
        value_range: Sequence[float] | None = None,
        group: str | None = None,
        held_out: str | Sequence[str] | None = None,
        masks: str | Path | None = None,
        **loading: Any,
    ):
        super().__init__(**loading)
        if root is None:
            raise UserError("data=folder needs data.root=FOLDER, a folder of images, or of folders of images")
        if label_column is not None and not isinstance(labels, str):
            raise UserError(
                f"data.label_column={label_column} names a column of a table; set data.labels=FILE.csv, too"
            )
        self.root, self.probe_root, self.labels, self.test_fraction = root, probe_root, labels, test_fraction
        self.train, self.test, self.label_column = train, test, label_column
        self.value_range = ranges.checked(value_range)
        grouped.checked(group, held_out)
        if group is not None and probe_root is not None:
            raise UserError("data.group works on data.root alone; leave data.probe_root out")
        self.group, self.held_out, self.masks = group, held_out, masks
        if masks is not None:
            mask_folder.check_apart(masks, root)

    def load(self) -> Loaded:
        parts = self._parts()
        paths = [path for part in dict.fromkeys(parts) for path in part.paths]
        self.value_range = ranges.of_files(paths, self.channels, self.value_range)
        whole = WholeSet(len(set(paths)))
        for part in parts:
            part.channels, part.value_range, part.broken.whole = self.channels, self.value_range, whole
        decoded = {part: decoded_once(part) for part in dict.fromkeys(parts)}
        train, test, probe = (decoded[part] for part in parts)
        if self.label_kind == MASKS:
            return self._masked(train, test)
        say(f"{self.root}: {opening(train, test, probe)}.")
        return (train, test) if probe is train else (train, test, probe)

    def everything(self) -> Everything:
        return everything.read(list_images(self.root), self.labels, self.label_column, self.label_kind)

    def _masked(self, train: ImageSet, test: ImageSet) -> Loaded:
        if self.masks is None:
            raise UserError("masks of data=folder are read from data.masks=FOLDER; give that folder")
        train, test = mask_folder.with_masks((train, test), self.masks, self.root)
        say(f"{self.root}: {len(train)} images to train on and {len(test)} to evaluate on, with masks.")
        return train, test

    def _parts(self) -> tuple[FileImages, FileImages, FileImages]:
        """(to pretrain on, to evaluate on, for probes and kNN), not decoded yet."""
        listing = list_images(self.root)
        if isinstance(self.labels, str):
            if self.probe_root is not None:
                raise UserError("data.labels=FILE.csv works on data.root alone; leave data.probe_root out")
            return self._of_table(listing, self.labels)
        if self.probe_root is None:
            train, test = self._read(listing, False if self.label_kind == MASKS else self.labels)
            return train, test, train
        everything = FileImages((layout.find_splits(listing).train or listing).paths())
        train, test = self._read(list_images(self.probe_root), None if self.labels is False else self.labels)
        if not train.labelled:
            raise UserError(f"data.probe_root={self.probe_root} has no class folders; probes need labels")
        return everything, test, train

    def _read(self, listing: Listing, labels: bool | None) -> tuple[FileImages, FileImages]:
        """(train, test) of one folder, by its layout."""
        splits = layout.find_splits(listing, self.train, self.test)
        if splits.train is None:
            return self._hold_out(_images(*layout.class_folders(listing, labels, exact_depth=True)), listing.root)
        train, classes = layout.class_folders(splits.train, labels, exact_depth=False)
        test, labelled = layout.evaluated_on(splits, classes)
        if test is None:
            return self._hold_out(_images(train, classes), train.root)
        if listing.same:
            _tell_of_shared(train, test)
        if self.group is not None:
            grouped.check_apart(grouped.of_files(self.group, [*train.files, *test.files]), len(train.files))
        return _images(train, classes), _images(test, classes if labelled else [])

    def _hold_out(self, images: FileImages, root: str) -> tuple[FileImages, FileImages]:
        images = _readable(images) if len(images) <= FEW else images
        if len(images) < 2:
            raise UserError(
                f"only one image under {root}; at least two are needed, one to train on and one to evaluate on"
            )
        train, test = self._divided(images.labels, self._groups(images.paths, root), root)
        kind = f"in {len(images.classes)} classes" if images.classes else "without labels"
        if len(test) == 0:
            raise UserError(
                f"{root}: {len(images)} images {kind}, one of each, so none can be held out for evaluation; add images "
                "or a test/ folder, or use them without labels (data.labels=false)"
            )
        say(
            f"{root}: {len(images)} images {kind} and no test folder; "
            f"{len(test)} of them (seeded) are held out for evaluation."
        )
        return images.subset(train), images.subset(test)

    def _groups(self, paths: list[str], root: str) -> tuple[Tensor, list[str]] | None:
        if self.group is None:
            return None
        return grouped.of_files(self.group, [path.removeprefix(f"{root}/") for path in paths])

    def _divided(self, labels: Tensor, found: tuple[Tensor, list[str]] | None, root: str) -> tuple[Tensor, Tensor]:
        labels = shares(labels, self.label_kind)
        return grouped.hold_out(labels, found, self.test_fraction, self.seed, self.held_out, root)

    def _of_table(self, listing: Listing, table: str) -> tuple[FileImages, FileImages, FileImages]:
        """Labels from a table: images without are pretrained on, and neither evaluated on nor probed with."""
        splits = layout.find_splits(listing, self.train, self.test)
        found_parts = (splits.train or listing, splits.test or splits.validation)
        parts = [layout.once(part) for part in found_parts if part is not None]
        paths = [path for part in parts for path in part.paths()]
        inside = f"{listing.root}/"
        names, column = [p.removeprefix(inside) for p in paths], grouped.column_of(self.group)
        found = label_file.read(table, listing.root, names, self.label_column, group=column, reads=self.label_kind)
        together = None if self.group is None else grouped.of_files(self.group, names, found.groups)
        whole = FileImages(paths, found.labels, found.classes).with_targets(found.targets, found.names)
        rows, first = torch.arange(len(paths)), len(parts[0].files)
        if len(parts) == 2 and bool(found.known[first:].any()):
            train, test = rows[:first], rows[first:]
            if together is not None:
                grouped.check_apart(together, first)
        else:
            if len(parts) == 2:
                say(f"{table} has no label for {parts[1].root}: some images of {parts[0].root} are held out instead.")
            rows = rows[:first]
            usable, labels = grouped.usable(found.labels[:first], together, found.known[:first])
            test = usable[self._divided(labels, grouped.at(together, usable), str(self.root))[1]]
            train = rows[~torch.isin(rows, test)]
        test, probe = test[found.known[test]], train[found.known[train]]
        if len(test) == 0 or len(probe) == 0:
            which = "evaluation" if len(test) == 0 else "training"
            raise UserError(f"{table} has no label for the {which} images; give labels for both, or more images")
        same = len(probe) == len(train)
        trained = whole.subset(train)
        return trained, whole.subset(test), trained if same else whole.subset(probe)


def _images(listing: Listing, classes: list[str]) -> FileImages:
    """The listing as images, labelled by the first folder of each path when there are classes."""
    if not classes:
        return FileImages(listing.paths())
    number = {name: label for label, name in enumerate(classes)}
    labels: Tensor = torch.tensor([number[name.split("/", 1)[0]] for name in listing.files])
    return FileImages(listing.paths(), labels, classes)


def _readable(images: FileImages) -> FileImages:
    """Those that can be decoded: of a small set one bad file may be all that would be held out."""
    bad = []
    for row, path in enumerate(images.paths):
        try:
            ranges.looked_at(path)
        except BROKEN:
            bad.append(row)
    if not bad or len(bad) == len(images):
        return images
    images.broken.add(torch.tensor(bad))
    images.broken.report()
    return images.subset(torch.tensor([row for row in range(len(images)) if row not in set(bad)]))


def _tell_of_shared(train: Listing, test: Listing) -> None:
    """By links, images may be trained on and evaluated on: worth a word."""
    both = set(map(realpath, train.paths())) & set(map(realpath, test.paths()))
    if both:
        many = counted(len(both), "image")
        say(
            f"{many} are in both the training and the evaluation data ({sorted(both)[0]} first): "
            "results will look too good."
        )
