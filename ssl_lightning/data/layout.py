"""What the folders of `data=folder` mean: which is a split, which a class, and what lies beside them.

Labels are never dropped without a word: what does not fit is named, and left out or told how to be used.
"""

import os
from dataclasses import dataclass

from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.data.broken import counted, named, say
from ssl_lightning.data.folder_scan import Listing, list_files

TRAIN = ("train", "training")
TEST = ("test", "testing")
VALIDATION = ("validation", "val", "valid")
# Folders that hold test images without labels, in the place where class folders would be.
NO_CLASS = ("images", "image", "img", "imgs", "test", "testing", "unknown", "unlabeled", "unlabelled")


@dataclass(frozen=True)
class Splits:
    """The parts of a folder; None where it has none."""

    train: Listing | None
    test: Listing | None
    validation: Listing | None = None
    chosen: bool = False  # `test` is the one the user named


def find_splits(listing: Listing, train: str | None = None, test: str | None = None) -> Splits:
    """Which part of a folder is to train on and which to evaluate on: the named ones, or by the usual names.

    A folder called `train` is a class where it holds images themselves and so do others beside it that bear no split's
    name. Raises UserError for a named part that is not there, or the same one twice.
    """
    named_train = _part(listing, train, "train") if train else None
    named_test = _part(listing, test, "test") if test else None
    if named_train and named_test and set(named_train.paths()) & set(named_test.paths()):
        raise UserError(
            f"data.train={train} and data.test={test} hold the same {listing.kind.word}s; name two different folders"
        )
    if named_train is None and named_test is None:
        listing = _unwrapped(listing)
    inside = None if named_train else _named(listing, TRAIN)
    if inside and _is_class(listing, inside):
        word = listing.kind.word
        say(f"{listing.root}: {inside}/ is read as a class, not as a split: the folders beside it hold {word}s, too.")
        inside = None
    found = named_train or (listing.under(inside) if inside else None)
    if named_test:
        tested = set(named_test.paths())
        rest = [name for name, path in zip(listing.files, listing.paths()) if path not in tested]
        return Splits(found or listing.only(rest), named_test, chosen=True)
    if found is None:
        return Splits(None, None)
    parts = [_named(listing, names) for names in (TEST, VALIDATION)]
    parts = [None if part and train and part.strip("/") == train.strip("/") else part for part in parts]
    if not named_train:
        _tell_what_is_left(listing, [inside, *parts])
    others = [listing.under(part) if part else None for part in parts]
    return Splits(found, others[0], others[1])


def _part(listing: Listing, name: str, which: str) -> Listing:
    """A part named by the user: a folder under the root, or one elsewhere."""
    inside = os.path.normpath(name)
    found = listing.under(inside)
    if found.files:
        return found
    elsewhere = os.path.expanduser(name)
    if os.path.isabs(elsewhere) and os.path.isdir(elsewhere):
        return list_files(elsewhere, listing.kind)
    tops = _tops(listing)
    hint = did_you_mean(name, tops) or (f" There are: {named(tops, 8)}." if tops else "")
    raise UserError(f"data.{which}={name} is not a folder with {listing.kind.word}s under {listing.root}.{hint}")


def _tops(listing: Listing) -> list[str]:
    return sorted({name.split("/", 1)[0] for name in listing.files if "/" in name})


def _named(listing: Listing, names: tuple[str, ...]) -> str | None:
    """The top folder with one of these names in any case, or None; the first name wins."""
    found = {top.lower(): top for top in _tops(listing)}
    return next((found[name] for name in names if name in found), None)


def _is_split(name: str) -> bool:
    return name.lower() in (*TRAIN, *TEST, *VALIDATION)


def _is_flat(listing: Listing, top: str) -> bool:
    """Does this folder hold images itself, and no folder with images?"""
    return all(name.count("/") == 1 for name in listing.files if name.startswith(top + "/"))


def _is_class(listing: Listing, train: str) -> bool:
    beside = [top for top in _tops(listing) if not _is_split(top) and top.lower() not in NO_CLASS]
    return _is_flat(listing, train) and any(_is_flat(listing, top) for top in beside)


def _unwrapped(listing: Listing) -> Listing:
    """The only folder inside, and so on, where the splits lie in there: archives unpack to such."""
    inner = listing
    while len(_tops(inner)) == 1 and all("/" in name for name in inner.files) and not _is_split(_tops(inner)[0]):
        inner = inner.under(_tops(inner)[0])
        if _named(inner, TRAIN) and _named(inner, (*TEST, *VALIDATION)):
            return inner
    return listing


def _tell_what_is_left(listing: Listing, used: list[str | None]) -> None:
    """Name the folders and images beside the splits."""
    left = [f"{top}/" for top in _tops(listing) if top not in used and not _is_split(top)]
    left += [name for name in listing.files if "/" not in name]
    if left:
        say(f"{listing.root}: not read, because they lie beside the splits: {named(left)}.")


# ---- classes


def once(listing: Listing) -> Listing:
    """Without folders that are links to another one in the same part: each image once, and that is said."""
    again = [(name, names[0]) for names in listing.same for name in names[1:]]
    gone = tuple(f"{name}/" for name, _ in again)
    files = [name for name in listing.files if not name.startswith(gone)] if gone else listing.files
    if len(files) == len(listing.files):
        return listing
    pairs = named([f"{name}/ is {first}/" for name, first in again])
    say(f"{listing.root}: read once, because a link makes them the same folder: {pairs}.")
    return listing.only(files)


def class_folders(listing: Listing, labels: bool | None, exact_depth: bool) -> tuple[Listing, list[str]]:
    """(the images to use, the class folders' names sorted; [] when the layout has no classes).

    Args:
        labels: False: no classes; True: the first folder is the class, at any depth; None: by the layout.
        exact_depth: class/image is the rule, and what lies deeper the exception; otherwise any depth is right.

    Raises:
        UserError: `labels` is True and an image lies in no folder.
    """
    listing = once(listing)
    if labels is False:
        return listing, []
    root, word = listing.root, listing.kind.word
    flat = [name for name in listing.files if "/" not in name]
    inside = [name for name in listing.files if "/" in name]
    classes = _tops(listing)
    if labels is True:
        if flat:
            raise UserError(f"data.labels=true, but {root}/{flat[0]} is not in a class folder; move it into one")
        return listing, classes
    if len(classes) < 2:
        if classes and flat:
            beside = counted(len(flat), word)
            say(f"{root}: used without labels, because there is only one folder, {classes[0]}/, beside {beside}.")
        return listing, []
    deeper = [name for name in inside if name.count("/") > 1] if exact_depth else []
    if 2 * len(deeper) > len(inside):
        fix = "data.labels=true takes the first folder of each path as its class"
        say(f"{root}: used without labels, because most {word}s lie deeper than class/{word} ({deeper[0]}); {fix}.")
        return listing, []
    if len(flat) >= len(inside):
        folders = named([f"{name}/" for name in classes])
        many = counted(len(flat), word)
        say(f"{root}: used without labels, because {many} lie outside the folders {folders}.")
        return listing, []
    if deeper:
        many = counted(len(deeper), word)
        say(f"{root}: {many} in subfolders of class folders get the class of the outer folder: {named(deeper)}.")
    if flat:
        fix = f"data.labels=false takes all {word}s, without labels"
        say(f"{root}: left out {counted(len(flat), word)} outside the class folders: {named(flat)}; {fix}.")
    empty = [name for name in listing.empty if "/" not in name]
    if empty:
        say(f"{root}: folders without {word}s are not classes: {named(empty)}.")
    return listing.only(inside) if flat else listing, classes


def labelled_part(listing: Listing, classes: list[str]) -> Listing | None:
    """The images of an evaluation part that lie in class folders; None where that part has no labels.

    Raises:
        UserError: a class folder that the training images have not.
    """
    listing = once(listing)
    flat = [name for name in listing.files if "/" not in name]
    tops = _tops(listing)
    if 2 * len(flat) >= len(listing.files) or (not set(tops) & set(classes) and _no_classes(tops)):
        return None
    for top in tops:
        if top not in classes:
            fix = did_you_mean(top, classes) or " Move it away, or name another part with data.test=."
            raise UserError(
                f"{listing.root} has a class folder {top!r} that the training {listing.kind.word}s do not have.{fix}"
            )
    if flat:
        many = counted(len(flat), listing.kind.word)
        say(f"{listing.root}: left out {many} outside the class folders: {named(flat)}.")
    return listing.only(name for name in listing.files if "/" in name)


def _no_classes(tops: list[str]) -> bool:
    return len(tops) == 1 and tops[0].lower() in NO_CLASS


def evaluated_on(splits: Splits, classes: list[str]) -> tuple[Listing | None, bool]:
    """(the part to evaluate on, whether it has labels): `test/`, or `validation/` where that alone has labels.

    (None, False) where the training images have labels and no part has: some of them are to be held out.
    """
    test, validation = splits.test, splits.validation
    if not classes:
        _tell_the_choice(test, validation)
        return test or validation, False
    for part, other in ((test, validation), (validation, test)):
        found = labelled_part(part, classes) if part else None
        if found is not None:
            if other and part is validation:
                name, own = os.path.basename(other.root), os.path.basename(found.root)
                say(f"{os.path.dirname(found.root)}: {name}/ has no class folders, so {own}/ is evaluated on.")
            else:
                _tell_the_choice(part, other)
            return found, True
    unlabelled = test or validation
    if unlabelled is None:
        return None, False
    name = os.path.basename(unlabelled.root)
    if splits.chosen:
        word = unlabelled.kind.word
        say(f"{unlabelled.root} has {word}s outside class folders, so it has no labels and gets no scores.")
        return unlabelled, False
    say(f"{unlabelled.root} has no class folders, so it is not used; data.test={name} uses it without labels.")
    return None, False


def _tell_the_choice(used: Listing | None, left: Listing | None) -> None:
    if used and left:
        names = [os.path.basename(part.root) for part in (used, left)]
        say(f"{os.path.dirname(used.root)}: {names[0]}/ is evaluated on; {names[1]}/ is not used.")
