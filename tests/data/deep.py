"""Writes the files that PIL cannot: PNGs of 16 bits a colour, TIFFs of many bands."""

import struct
import zlib
from pathlib import Path

import numpy as np


def ramp(top: float = 4095) -> np.ndarray:
    """(32, 32) numbers from 0 to `top`, each another one."""
    return np.linspace(0, top, 1024).reshape(32, 32)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """uint16 (H, W, C), C from 1 to 4: grey, with alpha, colours, with alpha."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    order: str = "<",
    packed: bool = False,
    apart: bool = False,
    differences: bool = False,
) -> None:
    """(H, W, C) of any type, one strip for all bands or one each."""
    height, width, bands = pixels.shape
    kind = pixels.dtype
    parts = [pixels[..., i : i + 1] for i in range(bands)] if apart else [pixels]
    strips = []
    for part in parts:
        if differences:
            part = np.concatenate([part[:, :1], np.diff(part, axis=1)], 1)
        data = part.astype(kind.newbyteorder(order)).tobytes()
        strips.append(zlib.compress(data) if packed else data)
    places = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries: list[tuple[int, str, list[int]]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [8 * kind.itemsize] * bands),
        (259, "H", [8 if packed else 1]),
        (262, "H", [1]),
        (273, "I", places),
        (277, "H", [bands]),
        (278, "I", [height]),
        (279, "I", [len(strip) for strip in strips]),
        (284, "H", [2 if apart else 1]),
        (317, "H", [2 if differences else 1]),
        (339, "H", [{"u": 1, "i": 2, "f": 3}[kind.kind]] * bands),
    ]
    body, table = b"".join(strips), b""
    for tag, form, values in entries:
        data = struct.pack(order + form * len(values), *values)
        if len(data) > 4:
            body, data = body + data, struct.pack(order + "I", 8 + len(body))
        table += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[form], len(values)) + data.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    path.write_bytes(head + body + struct.pack(order + "H", len(entries)) + table + b"\0\0\0\0")
