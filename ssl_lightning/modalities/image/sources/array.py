"""`data=array`: images in one .npz or .npy file."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import CLASSES, Reads
from ssl_lightning.data.broken import say
from ssl_lightning.data.label_cells import Labels
from ssl_lightning.data.labelled import shares
from ssl_lightning.data.labels import split
from ssl_lightning.modalities.image import depth, ranges
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.depth import WrongChannels
from ssl_lightning.modalities.image.described import opening, split_words
from ssl_lightning.modalities.image.images import ArrayImages

# (images, labels) under their usual names, for one whole set, for the training part and for the test part
Pair = tuple[np.ndarray, np.ndarray | None, str]
WHOLE = (("images", "labels"), ("x", "y"))
TRAIN = (("train_images", "train_labels"), ("x_train", "y_train"))
TEST = (("test_images", "test_labels"), ("x_test", "y_test"))
VALIDATION = (("val_images", "val_labels"), ("x_val", "y_val"))
NAMES = {name for pairs in (WHOLE, TRAIN, TEST, VALIDATION) for pair in pairs for name in pair}
MAX_CLASSES = 1_000_000  # a label beyond is no class number


class Array(DataModule):
    """Images from an array file; unlabelled when the file has no labels.

    - `.npz` with `images` and, if you have them, `labels` (or `x`, `y`): a seeded tenth is held out for evaluation;
    - `.npz` with `train_images`, `train_labels`, `test_images`, `test_labels` (or `x_train`, ...; `val` for `test`);
    - `.npy` with images alone, memory-mapped; labels in a second .npy file, if you have them.

    Images are (N, H, W, C), (N, C, H, W) or, of one channel, (N, H, W). What is not uint8 is scaled to 8 bits by one
    range for the whole file. Labels are class numbers (N,), or (N, L) of 0 and 1: L labels for each image; with
    task=regress numbers of any kind (N,) or (N, T), NaN for none.

    Args:
        root: the file.
        labels: .npy file of labels beside a .npy file of images.
        test_fraction: share held out where the file has no test part.
        value_range: [lowest, highest] value, which become 0 and 255; None: uint8 as it is, others by the range in use.
        loading: see `DataModule`.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        labels: str | Path | None = None,
        test_fraction: float = 0.1,
        value_range: Sequence[float] | None = None,
        **loading: Any,
    ):
        super().__init__(**loading)
        if root is None:
            raise UserError("data=array needs data.root=FILE, an .npz or .npy file of images")
        self.root = Path(root).expanduser()
        self.labels = None if labels is None else Path(labels).expanduser()
        self.test_fraction, self.value_range = test_fraction, ranges.checked(value_range)

    def load(self) -> Loaded:
        arrays = _read(self.root)
        if self.labels is not None:
            arrays["labels"] = _read(self.labels)["images"]
        whole, given, asked_of, validation = (
            _pair(arrays, names, self.label_kind) for names in (WHOLE, TRAIN, TEST, VALIDATION)
        )
        if given is None and whole is None:
            raise UserError(
                f"{self.root} holds {', '.join(arrays) or 'nothing'}; expected images (and labels), "
                "or train_images, train_labels, test_images, test_labels"
            )
        if asked_of and validation and not whole:
            say(f"{self.root}: the test part is evaluated on; the validation part is not used.")
        found = [whole or given, None if whole else asked_of or validation]
        parts = self._as_sets([part for part in found if part is not None])
        if len(parts) == 1:
            parts = self._hold_out(parts[0])
        train, test = parts
        known, asked = (Labels(part.labels, [], part.targets).known.nonzero().flatten() for part in parts)
        if len(known) and len(asked):  # images without a label are pretrained on, and neither probed with nor asked
            test = test if len(asked) == len(test) else test.subset(asked)
            probe = train if len(known) == len(train) else train.subset(known)
            say(f"{self.root}: {opening(train, test, probe)}.")
            return (train, test) if probe is train else (train, test, probe)
        say(f"{self.root}: {opening(train, test)}.")
        return train, test

    def _as_sets(self, parts: list[Pair]) -> list[ArrayImages]:
        """Each part as images of bytes, with the same classes."""
        pixels = [self._in_order(images, name) for images, _, name in parts]
        ends = [found for x in pixels if x.dtype != np.uint8 and (found := depth.extremes(x))]
        if ends and self.value_range is None:
            low, high, whole = min(e[0] for e in ends), max(e[1] for e in ends), depth.is_whole(pixels[0].dtype)
            self.value_range = ranges.tell(low, high, whole, str(self.root))
        single = [labels for _, labels, _ in parts if labels is not None and labels.ndim == 1]
        classes = [str(i) for i in range(max(int(part.max(initial=-1)) for part in single) + 1)] if single else []
        sets = []
        for x, (_, labels, _) in zip(pixels, parts, strict=True):
            several = labels is not None and labels.ndim == 2
            images = self._bytes(x)
            part = ArrayImages(images, None if several else labels, classes, channels=self.channels)
            if several and labels is not None:
                part.with_targets(torch.from_numpy(labels), [str(i) for i in range(labels.shape[1])])
            sets.append(part)
        return sets

    def _in_order(self, images: np.ndarray, name: str) -> np.ndarray:
        """(N, H, W, C), of any type, C being `channels` or what can be made them."""
        shape, wanted = images.shape, self.channels
        if images.dtype.kind not in "buif":
            raise UserError(f"{name} is {images.dtype}; save numbers")
        images = images[..., None] if images.ndim == 3 else images
        fitting = {1: (1, 3), 3: (1, 3)}.get(wanted, (wanted,))
        if images.ndim == 4 and images.shape[-1] not in fitting and images.shape[1] in fitting:
            images = images.transpose(0, 2, 3, 1)
        try:
            if images.ndim != 4:
                raise WrongChannels("it is no set of images")
            depth.with_channels(images[:1, :1, :1], wanted)
        except WrongChannels as error:
            forms = f"(N, H, W, {wanted}), (N, {wanted}, H, W) or (N, H, W)"
            raise UserError(f"{name} has shape {shape}; expected {forms}: {error}") from error
        return images

    def _bytes(self, images: np.ndarray, chunk: int = 1024) -> np.ndarray:
        """uint8 (N, H, W, C); bytes in the right order are used as they are, a memory map without a copy."""
        if images.dtype == np.uint8 and self.value_range is None and images.shape[-1] == self.channels:
            return np.ascontiguousarray(images)
        shape = (*images.shape[:3], self.channels)
        _fits(int(np.prod(shape, dtype=np.int64)), self.root)
        out = np.empty(shape, np.uint8)
        for start in range(0, len(images), chunk):
            part = images[start : start + chunk]
            part = part.astype(np.uint8) if part.dtype.kind == "b" else part
            out[start : start + chunk] = depth.with_channels(depth.to_bytes(part, self.value_range), self.channels)
        return out

    def _hold_out(self, whole: ArrayImages) -> list[ArrayImages]:
        train, test = split(shares(whole.labels, self.label_kind), self.test_fraction, self.seed)
        if len(train) == 0 or len(test) == 0:
            raise UserError(f"{self.root} holds {len(whole)} images, too few to hold some out for evaluation")
        say(
            f"{self.root}: {split_words(whole)} and no test part; "
            f"{len(test)} of them (seeded) are held out for evaluation."
        )
        return [whole.subset(train), whole.subset(test)]


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix not in (".npz", ".npy"):
        raise UserError(f"{path} is neither .npz nor .npy; save the images with numpy.savez or numpy.save")
    if not path.is_file():
        raise UserError(f"the array file {path.absolute()} does not exist; data.root names an .npz or .npy file")
    try:
        if path.suffix == ".npy":  # "c": changes stay in memory, so that torch sees an array it may write to
            return {"images": _plain(np.load(path, mmap_mode="c", allow_pickle=False))}
        _fits_memory(path)
        with np.load(path, allow_pickle=False) as file:
            # what has another name is not unpacked
            return {name: _plain(file[name]) if name in NAMES else np.empty(0) for name in file.files}
    except UserError:
        raise
    except Exception as error:  # a foreign file fails inside the reader in a dozen ways; all mean the same to the user
        why = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read ({why}); save plain arrays with numpy.savez or numpy.save") from error


def _plain(array: Any) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        array.close()  # an archive, whatever its name says
        raise ValueError(f"it holds a {type(array).__name__}")
    return array


def _fits_memory(path: Path) -> None:
    """Refuse an archive that unpacks to more than the machine has: a few kilobytes may stand for terabytes."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist() if member.filename.removesuffix(".npy") in NAMES)
    _fits(size, path)


def _fits(size: int, path: Path) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else size
    if size > memory:
        raise UserError(
            f"{path} unpacks to {size / 1e9:.0f} GB, more than this machine's memory of {memory / 1e9:.0f} GB; save "
            "the images with numpy.save as an .npy file, which is not read as a whole"
        )


def _pair(arrays: dict[str, np.ndarray], names: tuple[tuple[str, str], ...], reads: Reads = CLASSES) -> Pair | None:
    """(images, labels (N,), (N, L) or None, the images' name) under the first of `names` that is there."""
    read = _targets if reads == "numbers" else _numbers
    for images, labels in names:
        if images in arrays:
            found = arrays.get(labels)
            return arrays[images], None if found is None else read(found, labels), images
    return None


def _numbers(labels: np.ndarray, name: str) -> np.ndarray:
    """Class numbers (N,), or 0 and 1 (N, L)."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        if labels.dtype.kind not in "buif" or not np.isin(labels, (0, 1)).all():
            raise UserError(
                f"{name} has shape {labels.shape} and is not 0 and 1 alone; give a class number for each image, or "
                "choose task=regress, which reads numbers"
            )
        return labels.astype(np.int8)
    whole = labels.dtype.kind == "f" and labels.size > 0 and bool((labels == np.floor(labels)).all())
    return _integers(labels.astype(np.int64) if whole else labels, name)


def _targets(labels: np.ndarray, name: str) -> np.ndarray:
    """Numbers (N, T) float32; a row with one that is not finite is one without."""
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "buif":
        raise UserError(f"{name} is {labels.dtype} of shape {labels.shape}; task=regress takes numbers (N,) or (N, T)")
    with np.errstate(over="ignore"):
        found = labels.reshape(len(labels), -1).astype(np.float32)
    if bool((np.isinf(found) & np.isfinite(labels.reshape(found.shape))).any()):
        raise UserError(f"{name} has a number too large for 32 bits; give smaller ones, in another unit say")
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


def _integers(labels: np.ndarray, name: str) -> np.ndarray:
    labels = labels.squeeze(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        hint = ", or task=regress, which reads numbers" if labels.dtype.kind == "f" and labels.ndim == 1 else ""
        raise UserError(f"{name} is {labels.dtype} of shape {labels.shape}; expected integers (N,){hint}")
    if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < MAX_CLASSES:
        raise UserError(f"{name} run from {labels.min()} to {labels.max()}; expected class numbers from 0, -1 for none")
    return labels.astype(np.int64)
