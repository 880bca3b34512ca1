"""What an image file holds: its values, as deep and with as many channels as they are stored, the right way up."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssl_lightning.modalities.image import tiff
from ssl_lightning.modalities.image.depth import turned
from ssl_lightning.modalities.image.jpeg import decode_jpeg

# What reading raises on a damaged or foreign file.
BROKEN = (UnidentifiedImageError, OSError)
# Other formats are not even tried: some are scripts (EPS starts Ghostscript), some read further files.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "MPO", "JPEG2000", "ICO", "TGA")
NPY, TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of PIL, by the number of channels asked for
ORIENTATION = 0x0112


@contextmanager
def regular(path: str) -> Iterator[BinaryIO]:
    """A file for reading; whatever goes wrong with it, inside the block too, is one of `BROKEN`.

    A pipe, a device or a socket is refused without waiting for it.
    """
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{path} is not a regular file")
            yield file
    except BROKEN:
        raise
    except Exception as error:  # a hostile file fails inside a reader in a dozen ways
        raise OSError(f"{path} cannot be decoded: {type(error).__name__}: {error}") from error


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """An image file that PIL knows, for reading; errors as of `regular`."""
    with regular(path) as file, _identified(file) as image:
        yield image


def _identified(file: BinaryIO) -> Image.Image:
    file.seek(0)
    try:
        return Image.open(file, formats=FORMATS)
    except KeyError as error:  # PIL's, when none of its formats fits and not all were asked for before
        raise UnidentifiedImageError("no image of a format that is read") from error


def values(path: str, channels: int = 3) -> np.ndarray:
    """What a file holds: (H, W, C), in its own type.

    Of several pictures in a file the first is taken. `channels` is what will be asked for: files of 8 bits come with
    as many, where PIL can make them, and transparency is dropped where C is not `channels`.

    Raises:
        one of `BROKEN` when the file is truncated or is no image.
    """
    found, alpha = _values(path, channels)
    return found[..., :-1] if alpha and found.shape[2] != channels else found


def _values(path: str, channels: int) -> tuple[np.ndarray, bool]:
    """(the values, whether the last channel is transparency)."""
    with regular(path) as file:
        head = file.read(8)
        file.seek(0)
        if head.startswith(NPY):
            return _of_array(path, channels), False
        if head[:4] in TIFF and tiff.is_beyond_pil(file):
            return tiff.read(file)
        with _identified(file) as image:
            return _of_picture(image, file, channels)


def is_deep(path: str) -> bool:
    """Does this file hold more than 8 bits a value? Told by its header; False for what cannot be read."""
    try:
        with regular(path) as file:
            head = file.read(8)
            file.seek(0)
            if head.startswith(NPY):
                return bool(np.load(path, mmap_mode="r", allow_pickle=False).dtype != np.uint8)
            if head[:4] in TIFF and tiff.is_beyond_pil(file):
                return tiff.Tags(file).dtype != np.uint8
            with _identified(file) as image:
                return _is_grey(image) or _is_deep(image)
    except BROKEN:
        return False


def _of_array(path: str, channels: int) -> np.ndarray:
    """One image in an .npy file: (H, W), (H, W, C) or (C, H, W)."""
    found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.ndarray) or found.ndim not in (2, 3) or found.dtype.kind not in "biuf":
        raise OSError(f"{path} holds no image; save an array (H, W), (H, W, C) or (C, H, W) of numbers")
    found = np.array(found.astype(np.uint8) * 255 if found.dtype.kind == "b" else found)
    found = found[..., None] if found.ndim == 2 else found
    if found.shape[0] == channels != found.shape[2] or (found.shape[0] in (1, 3) and found.shape[2] > 4):
        found = found.transpose(1, 2, 0)
    return found


def _is_grey(image: Image.Image) -> bool:
    return image.mode[0] in "IF"


def _tile(image: Image.Image) -> Any:
    """(decoder, box, offset, arguments) of the first part of an opened file."""
    return getattr(image, "tile")[0]  # noqa: B009 (PIL's types leave it out)


def _is_deep(image: Image.Image) -> bool:
    """Colours of more than 8 bits, of which PIL would keep the highest 8; to be asked before the image is loaded."""
    arguments = _tile(image)[3] if getattr(image, "tile", None) else ""
    if image.format == "PPM":
        return (
            image.mode == "RGB"
            and isinstance(arguments, tuple)
            and isinstance(arguments[-1], int | float)
            and (arguments[-1] > 255)
        )
    rawmode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return ";16" in str(rawmode)


def of_pil(image: Image.Image, channels: int = 3) -> np.ndarray:
    """What an opened picture holds, (H, W, C), the right way up. PIL has dropped what a channel of colours has beyond 8
    bits; a path keeps it. Raises one of `BROKEN` where the picture is truncated."""
    found = np.array(image)[..., None] if _is_grey(image) else _bytes_of(image, channels)
    return turned(found.astype(found.dtype.newbyteorder("=")), _orientation(image))


def _of_picture(image: Image.Image, file: BinaryIO, channels: int) -> tuple[np.ndarray, bool]:
    if not _is_grey(image) and _is_deep(image) and image.format in ("PNG", "PPM"):
        found, alpha = _deep_png(image, file) if image.format == "PNG" else (_deep_ppm(image, file), False)
        return turned(found, _orientation(image)), alpha
    if _is_grey(image):
        pixels = np.array(image)[..., None]
        return turned(pixels.astype(pixels.dtype.newbyteorder("=")), _orientation(image)), False
    quick = decode_jpeg(image) if channels == 3 else None
    found = _bytes_of(image, channels) if quick is None else quick.numpy()
    return turned(found, _orientation(image)), False


def _bytes_of(image: Image.Image, channels: int) -> np.ndarray:
    """(H, W, C) of a picture of 8 bits: L, LA, P, RGBA, CMYK or 1-bit; alpha is dropped as PIL does."""
    if channels > 3 and image.mode in ("RGBX", "CMYK"):
        return np.array(image)
    transparent = "transparency" in image.info
    if image.mode in ("P", "PA") and (transparent or image.mode == "PA"):
        image = image.convert("RGBA")  # PIL warns when a palette with transparency goes to RGB directly
    grey, clear = image.mode in ("1", "L", "LA", "La"), image.mode in ("LA", "La", "RGBA", "RGBa", "PA")
    if channels not in (1, 3):  # what the file has is to be told, not made up
        channels = (1 if grey else 3) + clear
    pixels = np.array(image.convert(MODES[channels]))  # np.array copies: the result is writable
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _orientation(image: Image.Image) -> int:
    """EXIF's word on how the camera was held; 1 (upright) where there is none, or none that can be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block fails in many ways, and spoils no pixel
        return 1


def _deep_png(image: Image.Image, file: BinaryIO) -> tuple[np.ndarray, bool]:
    """Colours of 16 bits, or grey with transparency.

    PIL unpacks the higher byte of each number. Asked for numbers of the other order of bytes, it unpacks the lower one.
    """
    rawmode = str(_tile(image)[3])
    if rawmode.startswith("LA"):
        found = _read_as(file, "RGBA").astype(np.uint16)  # two numbers, of two bytes each
        return found[..., 0::2] * 256 + found[..., 1::2], True
    high, low = (_read_as(file, rawmode[:-1] + order).astype(np.uint16) for order in "BL")
    return high * 256 + low, high.shape[2] == 4


def _read_as(file: BinaryIO, rawmode: str) -> np.ndarray:
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as image:
        tile = _tile(image)
        image.tile = [tile._replace(args=rawmode) if hasattr(tile, "_replace") else (*tile[:3], rawmode)]  # type: ignore
        return np.array(image)


def _deep_ppm(image: Image.Image, file: BinaryIO) -> np.ndarray:
    width, height = image.size
    file.seek(_tile(image)[2])
    data = file.read(width * height * 6)
    if len(data) < width * height * 6:
        raise OSError("a PPM file that is cut short")
    return np.frombuffer(data, ">u2").astype(np.uint16).reshape(height, width, 3)
