"""From the values that a file or an array holds, of any depth and number of channels, to the bytes that views are of.

Images travel as bytes. What is deeper than 8 bits is scaled to 0..255 by one range of values for a whole data set: a
stated `data.value_range`, or the range in use (`range_in_use`). NaN becomes the lowest value.
"""

import numpy as np

LUMA = (0.299, 0.587, 0.114)  # of R, G, B in PIL's grey
Range = tuple[float, float]


class WrongChannels(OSError):
    """An image that cannot be brought to the number of channels that `data.channels` says."""


def range_in_use(low: float, high: float, whole: bool) -> Range:
    """The range to scale values by that lie between `low` and `high`; `whole`: they are whole numbers.

    The range of a number format where at least half of it is used: 0 to 2^8 - 1, 2^9 - 1, ... 2^32 - 1 for whole
    numbers; [0, 1], [-1, 1] or [0, 255] for others. Else [low, high] itself.

    >>> range_in_use(3, 3794, True), range_in_use(-1024, 3071, True), range_in_use(0, 0.98, False)
    ((0.0, 4095.0), (-1024.0, 3071.0), (0.0, 1.0))
    """
    formats: list[Range] = [(0.0, 2.0**bits - 1) for bits in range(8, 33)]
    if not whole:
        formats = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]
    for bottom, top in formats:
        if bottom <= low and high <= top:
            if low == high or high - low >= (top - bottom) / 2:
                return bottom, top
            break
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1)


def extremes(values: np.ndarray) -> Range | None:
    """The lowest and the highest finite value, or None where there is none."""
    if not np.issubdtype(values.dtype, np.inexact):
        return (float(values.min()), float(values.max())) if values.size else None
    finite = np.isfinite(values)
    if finite.all():
        return (float(values.min()), float(values.max())) if values.size else None
    return (float(values[finite].min()), float(values[finite].max())) if finite.any() else None


def is_whole(dtype: np.dtype) -> bool:
    """Does this type hold whole numbers?"""
    return not np.issubdtype(dtype, np.inexact)


def is_of_bytes(value_range: Range) -> bool:
    """Could bytes be meant by this range? Not by [0, 4095], [0, 1] or [-1024, 3071]."""
    return value_range[0] >= 0 and 1 < value_range[1] <= 255


def to_bytes(values: np.ndarray, value_range: Range | None = None) -> np.ndarray:
    """Values as uint8 of the same shape: `value_range` becomes 0..255, what lies outside is cut off.

    Without a range, or with one that is not of bytes, bytes stay as they are: a set may hold images of both kinds.
    Without a range deeper values are scaled by the one that they themselves use.
    """
    if values.dtype == np.uint8 and (value_range is None or not is_of_bytes(value_range)):
        return values
    if value_range is None:
        found = extremes(values)
        value_range = range_in_use(*found, is_whole(values.dtype)) if found else (0.0, 1.0)
    low, high = value_range
    exact = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    x: np.ndarray = np.subtract(values, low, dtype=exact)
    np.multiply(x, exact(255 / (high - low)), out=x)
    if not is_whole(values.dtype):
        np.nan_to_num(x, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return np.rint(x.clip(0, 255)).astype(np.uint8)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, C) or (N, H, W, C) with `channels` as the last axis.

    One channel is repeated to three, three become grey where one is asked for.

    Raises:
        WrongChannels: anything else.
    """
    found = pixels.shape[-1]
    if found == channels:
        return pixels
    if (found, channels) == (1, 3):
        return pixels.repeat(3, axis=-1)
    if (found, channels) == (3, 1):
        grey = pixels.astype(np.float32) @ np.array(LUMA, np.float32)
        return np.rint(grey).astype(pixels.dtype)[..., None]
    kinds = "1 channel" if found == 1 else f"{found} channels"
    raise WrongChannels(f"it has {kinds} and data.channels is {channels}; set data.channels={found}")


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) the right way up, after EXIF's number for how the camera was held (1 to 8; others do nothing)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return pixels[rows, columns]
