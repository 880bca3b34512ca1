"""`data=folder`: a folder of your own images, with or without labels, of any size and mode."""

from pathlib import Path
from typing import Any

import torch

from ssl_lightning.data.broken import say
from ssl_lightning.data.datamodule import DataModule, Loaded
from ssl_lightning.data.decode_cache import decoded_once
from ssl_lightning.data.folder_scan import Listing, list_images
from ssl_lightning.data.images import FileImages
from ssl_lightning.data.labels import split
from ssl_lightning.errors import UserError, did_you_mean

TRAIN = ("train", "training")
TEST = ("test", "testing")
VALIDATION = ("validation", "val", "valid")


class Folder(DataModule):
    """Images under one folder. Three layouts are understood:

    - `train/` and `test/` (or `validation/`, `val/`), each with one folder per class, or without classes;
    - one folder per class, from which a seeded stratified tenth is held out for evaluation;
    - images alone, directly or nested: unlabelled, a seeded tenth held out.

    Where both `test/` and `validation/` stand, `test/` is evaluated on and `validation/` is left alone.

    Args:
        root: the folder.
        probe_root: a labelled folder for probes and kNN, in one of the first two layouts; then all of `root`'s
            training images are pretrained on, and results are reported on `probe_root`'s evaluation split.
        labels: False ignores class folders; True takes the first folder of each path as its class, at any depth;
            None decides by the layout.
        test_fraction: share held out where there is no evaluation folder.
        loading: see `DataModule`.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        probe_root: str | Path | None = None,
        labels: bool | None = None,
        test_fraction: float = 0.1,
        **loading: Any,
    ):
        super().__init__(**loading)
        if root is None:
            raise UserError("data=folder needs data.root=FOLDER, a folder of images, or of folders of images")
        self.root, self.probe_root, self.labels, self.test_fraction = root, probe_root, labels, test_fraction

    def load(self) -> Loaded:
        if self.probe_root is None:
            train, test = self._read(self.root, self.labels)
            return decoded_once(train), decoded_once(test)
        listing = list_images(self.root)
        inside = _named(listing, TRAIN)
        everything = _images(listing.under(inside) if inside else listing, [])
        train, test = self._read(self.probe_root, None if self.labels is False else self.labels)
        if not train.labelled:
            raise UserError(f"data.probe_root={self.probe_root} has no class folders; probes need labels")
        return decoded_once(everything), decoded_once(test), decoded_once(train)

    def _read(self, root: str | Path, labels: bool | None) -> tuple[FileImages, FileImages]:
        """(train, test) of one folder, by its layout."""
        listing = list_images(root)
        train = _named(listing, TRAIN)
        if train is None:
            return self._hold_out(listing, _classes(listing, labels, exact_depth=True))
        inside = listing.under(train)
        classes = _classes(inside, labels, exact_depth=False)
        test = _named(listing, TEST)
        validation = _named(listing, VALIDATION)
        evaluation = test or validation
        if evaluation is None:
            return self._hold_out(inside, classes)
        if test and validation:
            say(f"{listing.root}: {test}/ is evaluated on; {validation}/ is left alone.")
        held_out = listing.under(evaluation)
        flat = any("/" not in name for name in held_out.files)
        if classes and flat:
            say(f"{held_out.root} holds images outside class folders, so it has no labels to score against.")
        return _images(inside, classes), _images(held_out, [] if flat else classes)

    def _hold_out(self, listing: Listing, classes: list[str]) -> tuple[FileImages, FileImages]:
        images = _images(listing, classes)
        if len(images) < 2:
            raise UserError(f"only one image under {listing.root}; a training and an evaluation image are the least")
        train, test = split(images.labels, self.test_fraction, self.seed)
        kind = f"in {len(classes)} classes" if classes else "without labels"
        say(
            f"{listing.root}: {len(images)} images {kind} and no test folder; "
            f"{len(test)} of them (seeded) are held out for evaluation."
        )
        return images.subset(train), images.subset(test)


def _named(listing: Listing, names: tuple[str, ...]) -> str | None:
    """The top folder with one of these names in any case, or None; the first name wins."""
    tops = {name.split("/", 1)[0] for name in listing.files if "/" in name}
    found = {top.lower(): top for top in tops}
    return next((found[name] for name in names if name in found), None)


def _classes(listing: Listing, labels: bool | None, exact_depth: bool) -> list[str]:
    """The class folders' names, sorted; [] when the layout has no classes.

    Args:
        exact_depth: demand class/image; otherwise class/any/depth/image counts too.
    """
    if labels is False:
        return []
    parts = [name.split("/") for name in listing.files]
    nested = all(len(part) > 1 for part in parts)
    if labels is True and not nested:
        flat = next(part[0] for part in parts if len(part) == 1)
        raise UserError(f"data.labels=true, but {listing.root}/{flat} lies in no class folder; move it into one")
    classes = sorted({part[0] for part in parts}) if nested else []
    if labels is None and (len(classes) < 2 or (exact_depth and any(len(part) > 2 for part in parts))):
        return []
    return classes


def _images(listing: Listing, classes: list[str]) -> FileImages:
    """The listing as images, labelled by the first folder of each path when there are classes."""
    if not classes:
        return FileImages(listing.paths())
    number = {name: label for label, name in enumerate(classes)}
    found = [name.split("/", 1)[0] for name in listing.files]
    for name in found:
        if name not in number:
            hint = did_you_mean(name, classes)
            raise UserError(f"{listing.root} has a class folder {name!r} that the training images have not.{hint}")
    return FileImages(listing.paths(), torch.tensor([number[name] for name in found]), classes)
