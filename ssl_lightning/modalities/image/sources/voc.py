"""`data=voc`: images with boxes or masks in the layout of Pascal VOC (http://host.robots.ox.ac.uk/pascal/VOC/)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.core.task import BOXES, MASKS
from ssl_lightning.data.broken import WholeSet, counted, named, say
from ssl_lightning.data.labels import split
from ssl_lightning.modalities.image.annotations import (
    Boxes,
    DenseSet,
    MaskFiles,
    checked_boxes,
    classes_of_masks,
    tell_left_out,
)
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import FileImages, ImageSet

IMAGES, ANNOTATIONS, SETS, MASK_FILES = "JPEGImages", "Annotations", "ImageSets", "SegmentationClass"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".JPG", ".JPEG", ".PNG")
# Of masks, whose files have numbers: class 0 is the background.
CLASSES = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
pottedplant sheep sofa train tvmonitor"""
LARGEST = 4_000_000  # bytes of an annotation


class VOC(DataModule):
    """Images of a folder with `JPEGImages`, `Annotations` (XML), `ImageSets` and, for masks, `SegmentationClass`.

    Images alone are given to a pretraining; boxes to stage=detect; masks to stage=segment, of the images that are
    listed in `ImageSets/Segmentation`. Boxes marked as difficult are background to a detector in training, and count in
    no metric.

    Args:
        root: that folder, or one that holds it (VOCdevkit).
        train, test: lists of `ImageSets`, by name; several as a list. None: trainval and test where both are listed,
            else train and val; without lists a seeded part is held out.
        test_fraction: share held out where there are no lists.
        loading: see `DataModule`.
    """

    annotated = (BOXES, MASKS)

    def __init__(
        self,
        root: str | Path | None = None,
        train: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        test_fraction: float = 0.1,
        **loading: Any,
    ):
        super().__init__(**loading)
        if root is None:
            raise UserError(f"data=voc needs data.root=FOLDER, one with {IMAGES} and {ANNOTATIONS}")
        self.root, self.train, self.test, self.test_fraction = Path(root).expanduser(), train, test, test_fraction

    def load(self) -> Loaded:
        home = found_home(self.root)
        names = self._names(home)
        whole = WholeSet(sum(map(len, names)))
        images = [FileImages(_paths(home, part), channels=self.channels, whole=whole) for part in names]
        classes: list[str] = []
        sets: list[ImageSet] = list(images)
        if self.label_kind == BOXES:
            read = read_all([home / ANNOTATIONS / f"{name}.xml" for part in names for name in part], str(home))
            classes = sorted({label for rows in read[: len(names[0])] for label, _ in rows})
            parts = read[: len(names[0])], read[len(names[0]) :]
            sets = [
                DenseSet(i, Boxes(_numbered(part, classes)), classes) for i, part in zip(images, parts, strict=True)
            ]
        elif self.label_kind == MASKS:
            masks = [MaskFiles(_masks(home, part)) for part in names]
            classes = _mask_classes(max(map(classes_of_masks, masks)))
            sets = [DenseSet(i, part, classes) for i, part in zip(images, masks, strict=True)]
        what = f" in {counted(len(classes), 'class')}" if classes else ""
        say(f"{home}: {len(names[0])} images to train on and {len(names[1])} to evaluate on{what}.")
        return sets[0], sets[1]

    def _names(self, home: Path) -> tuple[list[str], list[str]]:
        """The images to train on and to evaluate on, without extension."""
        folder = home / SETS / ("Segmentation" if self.label_kind == MASKS else "Main")
        listed = {file.stem: file for file in sorted(folder.glob("*.txt"))} if folder.is_dir() else {}
        chosen = [self.train, self.test]
        if chosen == [None, None]:
            pairs = (("trainval", "test"), ("train", "val"), ("train", "test"))
            pair = next(
                (p for p in pairs if p[0] in listed and p[1] in listed and self._known(home, listed[p[1]])), None
            )
            if pair is None:
                return self._held_out(home)
            chosen = list(pair)
        elif None in chosen:
            raise UserError("data.train and data.test go together; give both, or neither")
        train, test = (_listed(listed, some, folder) for some in chosen)
        both = set(train) & set(test)
        if both:
            say(f"{len(both)} images are trained and evaluated on ({min(both)} first): results will look too good.")
        return train, test

    def _known(self, home: Path, file: Path) -> bool:
        """Are there annotations of a list? Those of the challenge's own test images were not given away."""
        first = next(iter(_lines(file)), None)
        if first is None:
            return False
        if self.label_kind == MASKS:
            return (home / MASK_FILES / f"{first}.png").exists()
        return self.label_kind != BOXES or (home / ANNOTATIONS / f"{first}.xml").exists()

    def _held_out(self, home: Path) -> tuple[list[str], list[str]]:
        if self.label_kind == MASKS and not (home / MASK_FILES).is_dir():
            raise UserError(f"{home} has no masks: there is no folder {MASK_FILES}")
        names = sorted(p.stem for p in (home / IMAGES).iterdir() if p.suffix in EXTENSIONS)
        if self.label_kind == MASKS:
            names = [name for name in names if (home / MASK_FILES / f"{name}.png").exists()]
        train, test = split(torch.full((len(names),), -1), self.test_fraction, self.seed)
        if not len(test):
            raise UserError(f"{home} has {counted(len(names), 'image')} of this kind; at least two are needed")
        say(f"{home} has no lists of a training and a test set; {len(test)} images (seeded) are held out.")
        return [names[i] for i in train.tolist()], [names[i] for i in test.tolist()]


def found_home(root: Path) -> Path:
    """The folder with `JPEGImages`: root itself, or the one below it."""
    if not root.is_dir():
        raise UserError(f"data.root={root} is no folder; give one with {IMAGES} and {ANNOTATIONS}")
    found = sorted({p.parent for pattern in ("", "*/", "*/*/") for p in root.glob(f"{pattern}{IMAGES}")})
    if not found:
        raise UserError(
            f"data.root={root} has no folder {IMAGES}, as Pascal VOC has it; data=folder takes other layouts"
        )
    if len(found) > 1:
        raise UserError(f"data.root={root} has several sets ({named(p.name for p in found)}); give one of them")
    return found[0]


def _lines(file: Path) -> list[str]:
    """The names in a list; some lists say +1 or -1 behind each, whether a class is there."""
    try:
        return [words[0] for line in file.read_text().splitlines() if (words := line.split())]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as a list of images: {error}") from error


def _listed(listed: dict[str, Path], chosen: Any, folder: Path) -> list[str]:
    names: list[str] = []
    for name in [chosen] if isinstance(chosen, str) else chosen:
        if name not in listed:
            raise UserError(
                f"{folder} has no list {name}.txt.{did_you_mean(str(name), listed)} It has {named(listed, 6)}"
            )
        names += _lines(listed[name])
    if not names:
        raise UserError(f"{folder}: the list {chosen} is empty")
    return list(dict.fromkeys(names))


def _paths(home: Path, names: Sequence[str]) -> list[str]:
    there = {p.stem: str(p) for p in (home / IMAGES).iterdir() if p.suffix in EXTENSIONS}
    absent = [name for name in names if name not in there]
    if absent:
        raise UserError(f"{home / IMAGES} lacks {counted(len(absent), 'listed image')} ({named(absent)})")
    return [there[name] for name in names]


def _masks(home: Path, names: Sequence[str]) -> list[str]:
    paths = [home / MASK_FILES / f"{name}.png" for name in names]
    absent = [path.name for path in paths if not path.exists()]
    if absent:
        raise UserError(
            f"{home / MASK_FILES} lacks the masks of {counted(len(absent), 'listed image')} ({named(absent)})"
        )
    return list(map(str, paths))


def _mask_classes(count: int) -> list[str]:
    known = CLASSES.split()
    return known if count <= len(known) else [str(i) for i in range(count)]


# ---- annotations ----------------------------------------------------------------------------------------------------

Read = list[tuple[str, Tensor]]  # of an image: (class, x0, y0, x1, y1 and whether it is difficult) of each box


def read_all(files: Sequence[Path], source: str) -> list[Read]:
    """The boxes of each file; one line for those that have no area."""
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise UserError(f"{source} lacks the annotations of {counted(len(absent), 'image')} ({named(absent)})")
    found, lost = list[Read](), list[str]()
    for file in files:
        rows, bad = read_boxes(file)
        found.append(rows)
        lost += [file.name] * bad
    tell_left_out(source, lost)
    return found


def read_boxes(file: Path) -> tuple[Read, int]:
    """The boxes of one XML file, and how many have no area. Pixels are counted from 1 there, and from 0 here.

    Raises:
        UserError: no such file, no XML, an object without a name or four numbers.
    """
    tree = _tree(file)
    size = [_number(tree.findtext(f"size/{side}"), 0.0) for side in ("width", "height")]
    limits = [value if value and value > 0 else float("inf") for value in size]  # some files say 0 x 0
    rows, lost = list[tuple[str, Tensor]](), 0
    for one in tree.iter("object"):
        name = (one.findtext("name") or "").strip()
        corners = [_number(one.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        if not name or None in corners:
            what = "no name" if not name else f"a box that is not four numbers ({name[:40]})"
            raise UserError(f"{file}: an object has {what}; correct or remove it")
        difficult = float((one.findtext("difficult") or "0").strip() == "1")
        x0, y0, x1, y1 = (value or 0.0 for value in corners)
        good, bad = checked_boxes(torch.tensor([[x0 - 1, y0 - 1, x1, y1, 0.0, difficult]]), *limits)
        rows += [(name, row) for row in good]
        lost += bad
    return rows, lost


class _Plain(ElementTree.TreeBuilder):
    """Refuses a document type in any encoding: its entities may fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise UserError("it declares entities, or could")


def _tree(file: Path) -> ElementTree.Element:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    if len(content) > LARGEST:
        raise UserError(f"{file} is no annotation: it has more than {LARGEST:,} bytes")
    try:
        return ElementTree.fromstring(content, ElementTree.XMLParser(target=_Plain()))
    except UserError as error:
        raise UserError(f"{file} is no annotation: {error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file} is no XML: {error}; correct it, or take its image out of the lists") from error


def _number(word: str | None, default: float | None = None) -> float | None:
    try:
        found = float(word or "")
    except ValueError:
        return default
    return found if abs(found) < 1e9 else default


def _numbered(part: Sequence[Read], classes: Sequence[str]) -> list[Tensor]:
    """Boxes (M, 6) with the numbers of their classes; those of a class that no training image has are left out."""
    number = {name: i for i, name in enumerate(classes)}
    strange = sorted({name for rows in part for name, _ in rows if name not in number})
    if strange:
        say(f"{counted(len(strange), 'class')} that only test images have left out ({named(strange)}).")
    found = []
    for rows in part:
        kept = [
            torch.cat([row[:4], torch.tensor([float(number[name])]), row[5:]]) for name, row in rows if name in number
        ]
        found.append(torch.stack(kept) if kept else torch.zeros(0, 6))
    return found
