"""TIFF files that PIL cannot read, or only in part: more than four bands, or colours deeper than 8 bits.

Bands may lie pixel by pixel or one after the other, in strips or tiles. Packed ones are unpacked by PIL, to which
they are handed as one grey picture of bytes.
"""

import io
import os
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ssl_lightning.modalities.image.depth import turned

WIDTH, HEIGHT, BITS, COMPRESSION, SAMPLES, PLANAR, PREDICTOR = 256, 257, 258, 259, 277, 284, 317
STRIPS, STRIP_ROWS, STRIP_BYTES = 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
ORIENTATION, EXTRA, FORMAT = 274, 338, 339
KINDS = {1: "u", 2: "i", 3: "f"}
RARE = ("f2", "i1", "u4", "u8", "i8")
MOST_BANDS, MOST_PACKED = 4096, 2000


class Tags:
    """What the first image of a TIFF file says of itself."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        head = file.read(8)
        if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise OSError("no TIFF file")
        if head[:4] in (b"II+\0", b"MM\0+"):
            head += file.read(8)
        self.order = "<" if head[:2] == b"II" else ">"
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        self.tags: dict[int, Any] = dict(tags)
        self.width, self.height = int(self.tags[WIDTH]), int(self.tags[HEIGHT])
        self.bands = int(self.tags.get(SAMPLES, 1))
        bits, kinds = set(self._all(BITS, 1)), set(self._all(FORMAT, 1))
        if len(bits) != 1 or len(kinds) != 1 or bits - {8, 16, 32, 64} or kinds - set(KINDS):
            raise OSError(f"a TIFF file of {sorted(bits)} bits a sample, which is not read")
        self.dtype = np.dtype(f"{self.order}{KINDS[kinds.pop()]}{bits.pop() // 8}")
        size = self.width * self.height * self.bands * self.dtype.itemsize
        self.most = min(2**31, MOST_PACKED * file.seek(0, os.SEEK_END))
        if not 0 < self.bands <= MOST_BANDS or not 0 < size <= self.most:
            raise OSError("a TIFF file of no sensible size")
        self.orientation = int(self.tags.get(ORIENTATION, 1))
        self.alpha = self.bands in (2, 4) and bool(set(self._all(EXTRA, 0)) & {1, 2})

    def _all(self, tag: int, default: int) -> tuple[int, ...]:
        value = self.tags.get(tag, default)
        return tuple(value) if isinstance(value, tuple | list) else (value,)

    @property
    def blocks(self) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
        """(height, width, places in the file, bytes) of strips or tiles."""
        if TILES in self.tags:
            return (
                int(self.tags[TILE_HEIGHT]),
                int(self.tags[TILE_WIDTH]),
                self._all(TILES, 0),
                self._all(TILE_BYTES, 0),
            )
        rows = min(int(self.tags.get(STRIP_ROWS, self.height)), self.height)
        return rows, self.width, self._all(STRIPS, 0), self._all(STRIP_BYTES, 0)


def is_beyond_pil(file: BinaryIO) -> bool:
    """Does PIL not read this TIFF file as it is: more than four bands, several of more than 8 bits, or rare numbers?"""
    try:
        tags = Tags(file)
    except Exception:  # PIL has its own word on what is damaged or odd
        return False
    return tags.bands > 4 or (tags.bands > 1 and tags.dtype.itemsize > 1) or tags.dtype.str[1:] in RARE


def read(file: BinaryIO) -> tuple[np.ndarray, bool]:
    """(values (H, W, C) in the file's own type, the right way up; whether the last channel is transparency).

    Raises:
        OSError: what is no such TIFF file, damaged, or packed in a way that is not known.
    """
    tags = Tags(file)
    height, width, places, lengths = tags.blocks
    apart = int(tags.tags.get(PLANAR, 1)) == 2
    bands = 1 if apart else tags.bands
    down, across = -(-tags.height // height), -(-tags.width // width)
    padded = down * height * across * width * tags.bands * tags.dtype.itemsize
    if padded > max(tags.most, 2**26):
        raise OSError("a TIFF file of no sensible size")
    if len(places) != down * across * (tags.bands if apart else 1) or len(lengths) != len(places):
        raise OSError("a TIFF file whose parts do not add up")
    out = np.zeros((down * height, across * width, tags.bands), tags.dtype)
    for number, (place, length) in enumerate(zip(places, lengths, strict=True)):
        band, block = divmod(number, down * across)
        row, column = divmod(block, across)
        rows = height if TILES in tags.tags else min(height, tags.height - row * height)
        file.seek(place)
        block_of = _block(file.read(length), tags, rows, width, bands)
        area = out[row * height : row * height + rows, column * width : (column + 1) * width]
        area[..., band : band + bands] = block_of
    values = out[: tags.height, : tags.width].astype(tags.dtype.newbyteorder("="))
    return turned(values, tags.orientation), tags.alpha


def _block(packed: bytes, tags: Tags, rows: int, width: int, bands: int) -> np.ndarray:
    """One strip or tile: (rows, width, bands)."""
    line = width * bands * tags.dtype.itemsize
    plain = _unpacked(packed, int(tags.tags.get(COMPRESSION, 1)), rows, line)
    if len(plain) < rows * line:
        raise OSError("a TIFF file that is cut short")
    values = np.frombuffer(plain[: rows * line], tags.dtype).reshape(rows, width, bands)
    predictor = int(tags.tags.get(PREDICTOR, 1))
    if predictor == 1:
        return values
    if predictor != 2 or tags.dtype.kind == "f":
        raise OSError(f"a TIFF file with predictor {predictor}, which is not read")
    native = tags.dtype.newbyteorder("=")
    return np.cumsum(values.astype(native), axis=1, dtype=native)  # differences along a line, modulo the type


def _unpacked(packed: bytes, compression: int, rows: int, line: int) -> bytes:
    if compression == 1:
        return packed
    if compression in (8, 32946):
        try:
            return zlib.decompressobj().decompress(packed, rows * line)
        except zlib.error as error:
            raise OSError(f"a TIFF file that is damaged ({error})") from error
    entries = [(WIDTH, line), (HEIGHT, rows), (BITS, 8), (COMPRESSION, compression), (262, 1)]
    entries += [(STRIPS, 8), (SAMPLES, 1), (STRIP_ROWS, rows), (STRIP_BYTES, len(packed))]
    at = 8 + len(packed) + len(packed) % 2
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries)
    whole = b"II*\0" + struct.pack("<I", at) + packed + b"\0" * (len(packed) % 2) + directory + b"\0\0\0\0"
    with Image.open(io.BytesIO(whole), formats=("TIFF",)) as image:
        return image.tobytes()
