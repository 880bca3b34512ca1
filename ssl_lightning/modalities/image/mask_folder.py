"""A folder of masks beside a folder of images: `data=folder data.masks=FOLDER`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import counted, named
from ssl_lightning.modalities.image.annotations import DenseSet, MaskFiles, classes_of_masks
from ssl_lightning.modalities.image.images import ImageSet

EXTENSIONS = (".png", ".tif", ".tiff", ".bmp", ".gif")


def check_apart(masks: str | Path, root: str | Path) -> None:
    """Refuse masks inside the folder of images, where they would be trained on as such."""
    inside, outside = (Path(os.path.realpath(Path(p).expanduser())) for p in (masks, root))
    if not inside.is_dir():
        raise UserError(f"data.masks={masks} is no folder; give one with a mask for each image")
    if inside.is_relative_to(outside):
        raise UserError(
            f"data.masks={masks} lies inside data.root={root}, whose files are images; put them side by side"
        )


def with_masks(parts: Sequence[ImageSet], masks: str | Path, root: str | Path) -> list[DenseSet]:
    """Each part with its masks: the file of the same name, under the same folders, whatever its extension.

    The names of classes are their numbers.

    Raises:
        UserError: images without a mask, or masks without a class.
    """
    home, inside = Path(masks).expanduser(), Path(root).expanduser()
    files = [MaskFiles(_files(part.paths or [], home, inside)) for part in parts]
    count = max(map(classes_of_masks, files))
    if count < 1:
        raise UserError(f"the masks in {home} have no class")
    classes = [str(i) for i in range(max(2, count))]
    return [DenseSet(part, found, classes) for part, found in zip(parts, files, strict=True)]


def _files(paths: Sequence[str], home: Path, root: Path) -> list[str]:
    there = {
        str(p.relative_to(home).with_suffix("")): str(p) for p in home.rglob("*") if p.suffix.lower() in EXTENSIONS
    }
    names = [os.path.splitext(os.path.relpath(path, root))[0] for path in paths]
    absent = [name for name in names if name not in there]
    if absent:
        raise UserError(
            f"{home} lacks the masks of {counted(len(absent), 'image')} ({named(absent)}); each has its image's name, "
            "under the same folders"
        )
    return [there[name] for name in names]
