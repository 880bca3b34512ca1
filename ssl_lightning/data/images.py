"""Sets of images: decoded and equal in size (`ArrayImages`), or files decoded on access (`FileImages`)."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from ssl_lightning.data.broken import BrokenFiles
from ssl_lightning.errors import UserError
from ssl_lightning.plain_yaml import READ

# What `opened` raises on a damaged or foreign file.
BROKEN = (UnidentifiedImageError, OSError)
# Other formats are not even tried: some are scripts (EPS starts Ghostscript), some read further files.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "MPO", "JPEG2000", "ICO", "TGA")


class ImageSet(Dataset[tuple[Tensor, int, int]]):
    """Images with labels; `images[i]` is `(uint8 (H, W, 3), label, i)`.

    Attributes:
        labels: (N,) int64, -1 where there is none.
        classes: the class names, in label order; [] when unlabelled.
        paths: the file of each image, or None when the images do not come from files of their own.
    """

    labels: Tensor
    classes: list[str]
    paths: list[str] | None

    def __init__(self, labels: Tensor | None, count: int, classes: Sequence[str] = (), paths: list[str] | None = None):
        self.labels = torch.full((count,), -1) if labels is None else labels.to(torch.int64)
        if self.labels.shape != (count,):
            raise UserError(f"there are {count} images but {len(self.labels)} labels; give one label per image")
        self.classes = list(classes)
        self.paths = paths

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return self.image(index), int(self.labels[index]), index

    def image(self, index: int) -> Tensor:
        """One image, uint8 (H, W, 3)."""
        raise NotImplementedError

    def subset(self, indices: Tensor) -> "ImageSet":
        """The rows `indices` (M,) as a set of their own; the class names stay."""
        raise NotImplementedError

    @property
    def labelled(self) -> bool:
        """True when every image has a label."""
        return len(self) > 0 and bool((self.labels >= 0).all())


class ArrayImages(ImageSet):
    """Decoded images of one size, fetched by a whole index tensor at once: no Python per image.

    Args:
        images: uint8 (N, H, W, 3) tensor, array or memory map.
        labels: (N,) integers, or None.
        classes: class names; made from the labels ("0", "1", ...) when absent.
    """

    images: Tensor

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | Sequence[int] | None = None,
        classes: Sequence[str] = (),
        paths: list[str] | None = None,
    ):
        self.images = images if isinstance(images, Tensor) else torch.from_numpy(images)
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            shape = tuple(self.images.shape)
            raise UserError(f"images must be uint8 (N, H, W, 3), not {self.images.dtype} {shape}; convert them first")
        targets = None if labels is None else torch.as_tensor(labels).to(torch.int64)
        if targets is not None and not classes and len(targets):
            classes = [str(i) for i in range(int(targets.max()) + 1)]
        super().__init__(targets, len(self.images), classes, paths)

    def image(self, index: int) -> Tensor:
        return self.images[index]

    def batch(self, indices: Tensor) -> Tensor:
        """The images of `indices` (B,), uint8 (B, H, W, 3), on the device the images live on."""
        return self.images.index_select(0, indices.to(self.images.device))

    def subset(self, indices: Tensor) -> "ArrayImages":
        paths = None if self.paths is None else [self.paths[i] for i in indices.tolist()]
        return ArrayImages(self.images[indices], self.labels[indices], self.classes, paths)


class FileImages(ImageSet):
    """Image files, of any size and mode, decoded on access; `broken` counts those that turn out undecodable."""

    paths: list[str]

    def __init__(self, paths: list[str], labels: Tensor | None = None, classes: Sequence[str] = ()):
        super().__init__(labels, len(paths), classes, paths)
        self.broken = BrokenFiles(paths)

    def image(self, index: int) -> Tensor:
        return decode(self.paths[index])

    def subset(self, indices: Tensor) -> "FileImages":
        return FileImages([self.paths[i] for i in indices.tolist()], self.labels[indices], self.classes)


def decode(path: str) -> Tensor:
    """Reads an image file of any mode as uint8 RGB (H, W, 3).

    Raises:
        one of `BROKEN` when the file is truncated or is no image.
    """
    # Truncated files must fail here even when another library in the process asked PIL to be lenient.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with opened(path) as image:
        return torch.from_numpy(np.array(to_rgb(image)))  # np.array copies: the result is writable


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """An image file for reading; whatever goes wrong with it, inside the block too, is one of `BROKEN`.

    A pipe, a device or a socket is refused without waiting for it.
    """
    try:
        with open(os.open(path, READ), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{path} is no regular file")
            with Image.open(file, formats=FORMATS) as image:
                yield image
    except BROKEN:
        raise
    except Exception as error:  # a hostile file fails inside PIL in a dozen ways
        raise OSError(f"{path} cannot be decoded: {type(error).__name__}: {error}") from error


def regular_or_absent(path: str | os.PathLike[str]) -> None:
    """Raise a UserError for what is there but is no regular file: it would be waited for, or written to."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UserError(f"{os.path.abspath(path)} is no regular file; put the file there, or remove it")


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts L, LA, P, RGBA, CMYK, 1-bit, 16-bit and float images to RGB; alpha is dropped as PIL does."""
    if image.mode.startswith("I;16"):  # PIL clips 16-bit values at 255 instead of scaling them
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns when a palette with transparency goes to RGB directly
    return image.convert("RGB")


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Scales 32-bit values to 0..255 by the range they use: [0, 1] floats, bytes, or 16-bit integers."""
    top = float(values.max(initial=0))
    is_float = np.issubdtype(values.dtype, np.floating)
    scale = 255.0 if is_float and top <= 1 else 1.0 if top <= 255 else 255.0 / max(top, 65535.0)
    return np.clip(values.astype(np.float64) * scale, 0, 255).round().astype(np.uint8)
