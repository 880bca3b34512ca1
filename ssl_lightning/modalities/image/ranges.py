"""The range of values that a data set is scaled by: stated, or found by a look at some of its images."""

import os
from collections.abc import Sequence

import numpy as np

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import counted, say
from ssl_lightning.modalities.image import pixels
from ssl_lightning.modalities.image.depth import Range, WrongChannels, extremes, is_whole, range_in_use, with_channels
from ssl_lightning.modalities.image.pixels import BROKEN

HEADERS, LOOKED_AT = 64, 256  # files whose headers, and of deep ones whose values, are looked at, evenly spread
BYTES_ONLY = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".mpo", ".tga", ".pbm"))


def checked(value_range: Sequence[float] | None) -> Range | None:
    """A stated range as a pair. Raises UserError for anything but [lower, higher]."""
    if value_range is None:
        return None
    values = tuple(float(value) for value in value_range)
    if len(values) != 2 or not values[0] < values[1] or not all(np.isfinite(values)):
        raise UserError(f"data.value_range={list(value_range)} is not a range; give [lowest, highest]")
    return values[0], values[1]


def of_files(paths: Sequence[str], channels: int, stated: Range | None) -> Range | None:
    """The stated range; else, where some files are deeper than 8 bits, the range in use in a spread of 256 of them.

    Raises:
        UserError: a file with another number of channels than `channels`.
    """
    for path in _spread(paths, 4):
        _check_channels(path, channels)
    deep_suffix = [path for path in paths if os.path.splitext(path)[1].lower() not in BYTES_ONLY]
    if stated is not None or not any(map(pixels.is_deep, _spread(deep_suffix, HEADERS))):
        return stated
    found: list[Range] = []
    whole = True
    for path in _spread(deep_suffix, LOOKED_AT):
        try:
            values = looked_at(path, channels)
        except BROKEN:  # counted when it is decoded
            continue
        if values.dtype != np.uint8 and (ends := extremes(values)):
            found.append(ends)
            whole = whole and is_whole(values.dtype)
    if not found:
        return None
    return tell(min(low for low, _ in found), max(high for _, high in found), whole, counted(len(found), "deep image"))


def tell(low: float, high: float, whole: bool, what: str) -> Range:
    """The range in use, said in one line."""
    bottom, top = range_in_use(low, high, whole)
    stated = f"data.value_range=[{bottom:g},{top:g}]"
    say(f"Values run from {low:g} to {high:g} in {what}: scaled from {stated} to 8 bits; set another if this is wrong.")
    return bottom, top


def looked_at(path: str, channels: int = 3) -> np.ndarray:
    """A file's values. Raises one of `BROKEN` where it cannot be decoded."""
    return pixels.values(path, channels)


def _spread(paths: Sequence[str], most: int) -> list[str]:
    if not paths:
        return []
    return [paths[row] for row in np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)]


def _check_channels(path: str, channels: int) -> None:
    try:
        with_channels(pixels.values(path, channels)[:1, :1], channels)
    except WrongChannels as error:
        raise UserError(f"{path}: {error}") from error
    except BROKEN:
        return
