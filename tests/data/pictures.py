"""Writes small image folders for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, size: tuple[int, int] = (8, 8), value: int = 0) -> None:
    """An image (height, width) of noise with `value` in its red corner pixel; the kind is told by the suffix."""
    pixels = np.random.default_rng(value).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels[0, 0, 0] = value % 256
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_classes(folder: Path, classes: str = "ab", each: int = 10, size: tuple[int, int] = (8, 8)) -> None:
    """`each` PNG images in one folder per letter of `classes`."""
    for number, name in enumerate(classes):
        for i in range(each):
            write_picture(folder / name / f"{i:03}.png", size, number * each + i)


def write_mixed(folder: Path, each: int = 10) -> None:
    """Two classes of images of many sizes."""
    for number, name in enumerate("ab"):
        for i in range(each):
            write_picture(folder / name / f"{i:03}.png", (10 + i % 7, 20 - (i + number) % 11), number * each + i)
