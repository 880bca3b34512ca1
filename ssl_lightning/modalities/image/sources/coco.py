"""`data=coco`: images with boxes or masks in COCO's json (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import BOXES, MASKS
from ssl_lightning.data.broken import WholeSet, counted, named, say
from ssl_lightning.data.labels import split
from ssl_lightning.modalities.image.annotations import (
    IGNORED,
    Boxes,
    DenseSet,
    DrawnMasks,
    checked_boxes,
    tell_left_out,
)
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import FileImages, ImageSet

BACKGROUND = "background"
NEEDS_EXTRA = (
    "masks of COCO need pycocotools, which is not installed; install the extra: pip install 'ssl_lightning[dense]'"
)
MOST_CLASSES = 254  # of masks, whose pixels are bytes
MOST_PIXELS = 178_956_970  # of a mask: PIL opens no larger image


class Coco(DataModule):
    """Images that a json file lists, with the boxes and polygons in it.

    Images alone are given to a pretraining; boxes to stage=detect; masks to stage=segment: each pixel has the class of
    the smallest object over it. Crowds count in no metric; a detector learns them as background, masks leave them out.

    Args:
        root: the folder of images, or one that holds theirs.
        annotations: the json file of the training images.
        test_annotations: that of the test images; None: a seeded part of the images is held out.
        test_fraction: that part.
        loading: see `DataModule`.
    """

    annotated = (BOXES, MASKS)

    def __init__(
        self,
        root: str | Path | None = None,
        annotations: str | Path | None = None,
        test_annotations: str | Path | None = None,
        test_fraction: float = 0.1,
        **loading: Any,
    ):
        super().__init__(**loading)
        if root is None or annotations is None:
            raise UserError("data=coco needs data.root=FOLDER, of images, and data.annotations=FILE.json")
        self.root, self.test_fraction = Path(root).expanduser(), test_fraction
        self.annotations = Path(annotations).expanduser()
        self.test_annotations = None if test_annotations is None else Path(test_annotations).expanduser()

    def load(self) -> Loaded:
        listed = Listed(self.annotations, self.root)
        if self.test_annotations is not None:
            other = Listed(self.test_annotations, self.root, listed.numbers)
            parts = [(listed, list(range(len(listed.paths)))), (other, list(range(len(other.paths))))]
        else:
            train, test = split(torch.full((len(listed.paths),), -1), self.test_fraction, self.seed)
            if not len(test):
                raise UserError(
                    f"{self.annotations} lists {counted(len(listed.paths), 'image')}; two are needed at least"
                )
            say(f"{self.annotations}: {len(test)} images (seeded) are held out; data.test_annotations= names others.")
            parts = [(listed, train.tolist()), (listed, test.tolist())]
        whole = WholeSet(sum(len(rows) for _, rows in parts))
        sets: list[ImageSet] = []
        for source, rows in parts:
            images = FileImages([source.paths[i] for i in rows], channels=self.channels, whole=whole)
            sets.append(self._annotated(images, source, rows))
        say(f"{self.root}: {len(sets[0])} images to train on and {len(sets[1])} to evaluate on.")
        return sets[0], sets[1]

    def _annotated(self, images: FileImages, source: Listed, rows: Sequence[int]) -> ImageSet:
        if self.label_kind == BOXES:
            return DenseSet(images, Boxes(source.boxes(rows)), source.classes)
        if self.label_kind == MASKS:
            _pycocotools()
            if len(source.classes) > MOST_CLASSES:
                raise UserError(
                    f"{source.file} has {len(source.classes)} categories; masks hold {MOST_CLASSES} at most"
                )
            return DenseSet(images, DrawnMasks(source.outlines(rows), drawn), [BACKGROUND, *source.classes])
        return images


class Listed:
    """A json file: images, categories and objects, by image.

    Args:
        numbers: {category's id: its number} of the training file, for one of the same categories.

    Raises:
        UserError: the file is none of COCO's, or names what is not there.
    """

    def __init__(self, file: Path, root: Path, numbers: Mapping[int, int] | None = None) -> None:
        self.file = file
        found = _json(file)
        images = [one for one in found["images"] if isinstance(one, dict)]
        self.places = {_key(one.get("id")): i for i, one in enumerate(images)}
        self.paths = _paths(images, root, file)
        self.sizes = [(_side(one, "width"), _side(one, "height")) for one in images]
        categories = sorted(
            (one for one in found["categories"] if isinstance(one, dict) and isinstance(one.get("id"), int)),
            key=lambda one: one["id"],
        )
        self.classes = [str(one.get("name", one["id"])) for one in categories]
        own = {one["id"]: i for i, one in enumerate(categories)}
        self.numbers = dict(numbers) if numbers is not None else own
        self.objects: list[list[dict[str, Any]]] = [[] for _ in images]
        for one in found["annotations"]:
            place = self.places.get(_key(one.get("image_id"))) if isinstance(one, dict) else None
            if place is None or _key(one.get("category_id")) not in self.numbers:
                what = "an image or a category that it does not list"
                raise UserError(f"{file}: annotation {_id(one)} is of {what}; correct or remove it")
            self.objects[place].append(one)

    def boxes(self, rows: Sequence[int]) -> list[Tensor]:
        """(M, 6) of each image at these rows."""
        found, lost = [], list[str]()
        for row in rows:
            width, height = self.sizes[row]
            values = [[*_corners(one, self.file), self.numbers[one["category_id"]], float(bool(one.get("iscrowd")))]
                      for one in self.objects[row]]  # fmt: skip
            good, bad = checked_boxes(torch.tensor(values, dtype=torch.float32).view(-1, 6), width, height)
            found.append(good)
            lost += [Path(self.paths[row]).name] * bad
        tell_left_out(str(self.file), lost)
        return found

    def outlines(self, rows: Sequence[int]) -> list[tuple[tuple[int, int], list[tuple[int, Any]], str]]:
        """Of each image its (height, width), its objects as (class, outline), the largest first, and its file."""
        found = []
        for row in rows:
            width, height = self.sizes[row]
            if not np.isfinite([width, height]).all():
                raise UserError(
                    f"{self.file}: image {Path(self.paths[row]).name} has no width and height, which masks need"
                )
            if width * height > MOST_PIXELS:
                raise UserError(
                    f"{self.file}: image {Path(self.paths[row]).name} is said to be {width:g} x {height:g} px; masks "
                    f"have {MOST_PIXELS:,} pixels at most"
                )
            objects = sorted(self.objects[row], key=lambda one: -_area(one))
            kept = [(IGNORED if one.get("iscrowd") else 1 + self.numbers[one["category_id"]], one.get("segmentation"))
                    for one in objects]  # fmt: skip
            found.append(((int(height), int(width)), kept, str(self.file)))
        return found


def drawn(kept: tuple[tuple[int, int], list[tuple[int, Any]], str]) -> Tensor:
    """The class of each pixel, uint8 (H, W): what comes later lies over what comes before."""
    tools = _pycocotools()
    (height, width), objects, file = kept
    out = np.zeros((height, width), np.uint8)
    for label, outline in objects:
        try:
            if isinstance(outline, list):
                polygons = [p for p in outline if isinstance(p, list) and len(p) >= 6]
                if not polygons:
                    continue
                packed = tools.merge(tools.frPyObjects(polygons, height, width))
            elif isinstance(outline, dict):
                if outline.get("size") != [height, width]:  # asked before: a larger one would take its memory
                    raise ValueError(f"its size is {str(outline.get('size'))[:40]}")
                raw = isinstance(outline.get("counts"), list)
                packed = tools.frPyObjects(outline, height, width) if raw else outline
            else:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of its use of numpy
                covered = tools.decode(packed).astype(bool)
            out[covered] = label
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            raise UserError(f"{file}: an outline cannot be drawn on {width} x {height} pixels: {error}") from error
    return torch.from_numpy(out)


def _json(file: Path) -> dict[str, list[Any]]:
    if not file.is_file():
        raise UserError(f"{file} is no file; give data.annotations=FILE.json")
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON: {error}") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in keys):
        raise UserError(f"{file} is not COCO's: it needs lists of {', '.join(keys)}")
    if not found["images"]:
        raise UserError(f"{file} lists no image")
    return found


def _paths(images: Sequence[dict[str, Any]], root: Path, file: Path) -> list[str]:
    """The file of each image: under root, or in a folder of it, such as val2017."""
    names = [str(one.get("file_name") or "") for one in images]
    bad = [name for name in names if not name or name.startswith(("/", "\\")) or ".." in Path(name).parts]
    if bad:
        raise UserError(
            f"{file}: {counted(len(bad), 'image')} without a file name under the folder ({named(map(repr, bad))})"
        )
    folders = [root, *(sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else [])]
    home = next((folder for folder in folders if (folder / names[0]).is_file()), None)
    if home is None:
        raise UserError(f"{root} holds no {names[0]}, which {file} lists; give data.root=FOLDER of the images")
    return [str(home / name) for name in names]


def _side(image: Mapping[str, Any], name: str) -> float:
    value = image.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else float("inf")


def _corners(one: Mapping[str, Any], file: Path) -> list[float]:
    box = one.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) and abs(v) < 1e9 for v in box):
        raise UserError(f"{file}: annotation {_id(one)} has no box of four numbers; correct or remove it")
    x, y, w, h = map(float, box)
    return [x, y, x + w, y + h]


def _area(one: Mapping[str, Any]) -> float:
    area, box = one.get("area"), one.get("bbox")
    if isinstance(area, int | float):
        return float(area)
    return float(box[2] * box[3]) if isinstance(box, list) and len(box) == 4 else 0.0


def _key(value: Any) -> Any:
    """An id that can be looked up; None for what is none, such as a list."""
    return value if isinstance(value, int | str) else None


def _id(one: Any) -> str:
    return str(one.get("id", "without id"))[:40] if isinstance(one, dict) else repr(one)[:40]


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise UserError(NEEDS_EXTRA) from error
    return mask
