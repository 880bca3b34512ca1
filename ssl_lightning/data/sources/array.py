"""`data=array`: images in one .npz or .npy file."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.data.broken import say
from ssl_lightning.data.datamodule import DataModule, Loaded
from ssl_lightning.data.images import ArrayImages
from ssl_lightning.data.labels import split
from ssl_lightning.errors import UserError

# (images, labels) under their usual names, for one whole set, for the training part and for the test part
WHOLE = (("images", "labels"), ("x", "y"))
TRAIN = (("train_images", "train_labels"), ("x_train", "y_train"))
TEST = (("test_images", "test_labels"), ("x_test", "y_test"))
NAMES = {name for pairs in (WHOLE, TRAIN, TEST) for pair in pairs for name in pair}
MAX_CLASSES = 1_000_000  # a label beyond is no class number


class Array(DataModule):
    """Images from an array file; unlabelled when the file has no labels.

    - `.npz` with `images` and, if you have them, `labels` (or `x`, `y`): a seeded tenth is held out for evaluation;
    - `.npz` with `train_images`, `train_labels`, `test_images`, `test_labels` (or `x_train`, ...);
    - `.npy` with images alone, memory-mapped; labels in a second .npy file, if you have them.

    Images are uint8, (N, H, W, 3), (N, 3, H, W), (N, H, W, 1) or (N, H, W).

    Args:
        root: the file.
        labels: .npy file of labels beside a .npy file of images.
        test_fraction: share held out where the file has no test part.
        loading: see `DataModule`.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        labels: str | Path | None = None,
        test_fraction: float = 0.1,
        **loading: Any,
    ):
        super().__init__(**loading)
        if root is None:
            raise UserError("data=array needs data.root=FILE, an .npz or .npy file of uint8 images")
        self.root = Path(root).expanduser()
        self.labels = None if labels is None else Path(labels).expanduser()
        self.test_fraction = test_fraction

    def load(self) -> Loaded:
        arrays = _read(self.root)
        if self.labels is not None:
            arrays["labels"] = _read(self.labels)["images"]
        if whole := _pair(arrays, WHOLE):
            return self._hold_out(*whole)
        train, test = _pair(arrays, TRAIN), _pair(arrays, TEST)
        if train is None:
            raise UserError(
                f"{self.root} holds {', '.join(arrays) or 'nothing'}; expected images (and labels), "
                "or train_images, train_labels, test_images, test_labels"
            )
        if test is None:
            return self._hold_out(*train)
        labels = [part[1] for part in (train, test) if part[1] is not None]
        classes = [str(i) for i in range(max(int(part.max()) for part in labels) + 1)] if labels else []
        return ArrayImages(*train, classes), ArrayImages(*test, classes)

    def _hold_out(self, images: np.ndarray, labels: np.ndarray | None) -> Loaded:
        whole = ArrayImages(images, labels)
        train, test = split(whole.labels, self.test_fraction, self.seed)
        if len(train) == 0 or len(test) == 0:
            raise UserError(f"{self.root} holds {len(whole)} images, too few to hold some out for evaluation")
        kind = f"in {len(whole.classes)} classes" if whole.classes else "without labels"
        say(
            f"{self.root}: {len(whole)} images {kind} and no test part; "
            f"{len(test)} of them (seeded) are held out for evaluation."
        )
        return whole.subset(train), whole.subset(test)


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
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise UserError(
            f"{path} unpacks to {size / 1e9:.0f} GB, more than this machine's memory of {memory / 1e9:.0f} GB; save "
            "the images with numpy.save as an .npy file, which is not read as a whole"
        )


def _pair(
    arrays: dict[str, np.ndarray], names: tuple[tuple[str, str], ...]
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """(images uint8 (N, H, W, 3), labels (N,) or None) under the first of `names` that is there."""
    for images, labels in names:
        if images in arrays:
            found = arrays.get(labels)
            return _rgb(arrays[images], images), None if found is None else _integers(found, labels)
    return None


def _rgb(images: np.ndarray, name: str) -> np.ndarray:
    """Brings grey and channels-first images to (N, H, W, 3)."""
    if images.dtype != np.uint8:
        raise UserError(f"{name} is {images.dtype}; save it as uint8 from 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[1] == 3 and images.shape[-1] not in (1, 3):
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images.repeat(3, axis=-1)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"{name} has shape {images.shape}; expected (N, H, W, 3), (N, 3, H, W) or (N, H, W)")
    return images


def _integers(labels: np.ndarray, name: str) -> np.ndarray:
    labels = labels.squeeze(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{name} is {labels.dtype} of shape {labels.shape}; expected integers (N,)")
    if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < MAX_CLASSES:
        raise UserError(f"{name} run from {labels.min()} to {labels.max()}; expected class numbers from 0, -1 for none")
    return labels.astype(np.int64)
