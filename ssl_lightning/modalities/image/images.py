"""Sets of images: decoded and equal in size (`ArrayImages`), or files decoded on access (`FileImages`)."""

import contextlib
import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import ImageFile
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import BrokenFiles, WholeSet
from ssl_lightning.data.items import ItemSet
from ssl_lightning.modalities.image import depth, pixels
from ssl_lightning.modalities.image.jpeg import same_as_pil
from ssl_lightning.modalities.image.pixels import BROKEN, FORMATS, opened

__all__ = ["BROKEN", "FORMATS", "ArrayImages", "FileImages", "ImageSet", "decode", "opened", "regular_or_absent"]


class ImageSet(ItemSet):
    """Images with labels; `images[i]` is `(uint8 (H, W, C), label, i)`.

    Attributes:
        channels: C, 3 for colours.
    """

    noun = "image"
    unreadable = BROKEN
    channels: int = 3

    def image(self, index: int) -> Tensor:
        """One image, uint8 (H, W, C)."""
        raise NotImplementedError

    def item(self, index: int) -> Tensor:
        return self.image(index)

    def sides(self, rows: Tensor) -> Tensor:
        """(M, 2) int64, height and width of these images; those of a file that cannot be read are 0."""
        raise NotImplementedError

    def subset(self, indices: Tensor) -> "ImageSet":
        raise NotImplementedError


class ArrayImages(ImageSet):
    """Decoded images of one size, fetched by a whole index tensor at once: no Python per image.

    Args:
        images: uint8 (N, H, W, C) tensor, array or memory map.
        labels: (N,) integers, or None.
        classes: class names; made from the labels ("0", "1", ...) when absent.
        channels: C.
    """

    images: Tensor
    in_memory = True

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | Sequence[int] | None = None,
        classes: Sequence[str] = (),
        paths: list[str] | None = None,
        channels: int = 3,
    ):
        self.images, self.channels = images if isinstance(images, Tensor) else torch.from_numpy(images), channels
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[-1] != channels:
            wanted, shape = f"(N, H, W, {channels})", tuple(self.images.shape)
            raise UserError(f"images must be uint8 {wanted}, not {self.images.dtype} {shape}; convert them first")
        targets = None if labels is None else torch.as_tensor(labels).to(torch.int64)
        if targets is not None and not classes and len(targets):
            classes = [str(i) for i in range(int(targets.max()) + 1)]
        super().__init__(targets, len(self.images), classes, paths)

    def image(self, index: int) -> Tensor:
        return self.images[index]

    def batch(self, indices: Tensor) -> Tensor:
        """The images of `indices` (B,), uint8 (B, H, W, C), on the device the images live on."""
        return self.images.index_select(0, indices.to(self.images.device))

    def sides(self, rows: Tensor) -> Tensor:
        return torch.tensor(self.images.shape[1:3]).expand(len(rows), 2)

    def to(self, device: torch.device) -> "ArrayImages":
        """The same set with its images on a device."""
        moved = ArrayImages(self.images.to(device), self.labels, self.classes, self.paths, self.channels)
        return moved.with_targets(self.targets, self.target_names, self.targets_borne)

    def subset(self, indices: Tensor) -> "ArrayImages":
        paths = None if self.paths is None else [self.paths[i] for i in indices.tolist()]
        part = ArrayImages(self.images[indices], self.labels[indices], self.classes, paths, self.channels)
        return part.with_targets(*self._targets_of(indices))


class FileImages(ImageSet):
    """Image files, of any size and mode, decoded on access; `broken` counts those that turn out undecodable.

    Args:
        paths, labels, classes: of the images.
        channels, value_range: see `decode`.
        whole: the set that these files are a part of, for the share of files that may be broken; None: of their own.
    """

    paths: list[str]
    broken: BrokenFiles

    def __init__(
        self,
        paths: list[str],
        labels: Tensor | None = None,
        classes: Sequence[str] = (),
        channels: int = 3,
        value_range: depth.Range | None = None,
        whole: WholeSet | None = None,
    ):
        super().__init__(labels, len(paths), classes, paths)
        self.channels, self.value_range = channels, value_range
        self.broken = BrokenFiles(paths, whole)

    def prepare(self) -> None:
        same_as_pil()

    def image(self, index: int) -> Tensor:
        return decode(self.paths[index], self.channels, self.value_range)

    def sides(self, rows: Tensor) -> Tensor:
        found = torch.zeros(len(rows), 2, dtype=torch.int64)
        for at, row in enumerate(rows.tolist()):
            with contextlib.suppress(*BROKEN), opened(self.paths[row]) as image:
                found[at] = torch.tensor([image.height, image.width])
        return found

    def subset(self, indices: Tensor) -> "FileImages":
        paths, labels = [self.paths[i] for i in indices.tolist()], self.labels[indices]
        part = FileImages(paths, labels, self.classes, self.channels, self.value_range, self.broken.whole)
        return part.with_targets(*self._targets_of(indices))


def decode(path: str, channels: int = 3, value_range: depth.Range | None = None) -> Tensor:
    """Reads an image file of any mode and depth as uint8 (H, W, channels), the right way up.

    Args:
        channels: 3 for colours (grey is repeated), 1 for grey, or exactly as many as the file has.
        value_range: the values that become 0 and 255; None: bytes as they are, deeper values by the range in use.

    Raises:
        one of `BROKEN` when the file is truncated, is no image, or has another number of channels.
    """
    # Truncated files must fail here even when another library in the process asked PIL to be lenient.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    shown = depth.with_channels(depth.to_bytes(pixels.values(path, channels), value_range), channels)
    return torch.from_numpy(np.require(shown, requirements=["C", "W"]))


def regular_or_absent(path: str | os.PathLike[str]) -> None:
    """Raise a UserError for what is there but is no regular file: it would be waited for, or written to."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UserError(f"{os.path.abspath(path)} is not a regular file; put the file there, or remove it")
