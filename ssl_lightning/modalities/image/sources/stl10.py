"""`data=stl10`: 96 x 96 images, 100,000 without labels to pretrain on (https://cs.stanford.edu/~acoates/stl10)."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import ArrayImages, regular_or_absent

FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin", "class_names.txt")
SIDE = 96


class STL10(DataModule):
    """Pretrains on the unlabelled images; probes learn from the 5,000 labelled ones and are scored on 8,000.

    Args:
        root: folder of the download (2.6 GB).
        pretrain_on: the images to pretrain on.
        loading: see `DataModule`.
    """

    archive = "stl10_binary.tar.gz"
    address = "http://ai.stanford.edu/~acoates/stl10"

    def __init__(
        self,
        root: str | Path = "data",
        pretrain_on: Literal["unlabeled", "train+unlabeled", "train"] = "unlabeled",
        **loading: Any,
    ):
        super().__init__(**loading)
        if pretrain_on not in ("unlabeled", "train+unlabeled", "train"):
            raise UserError(f"data.pretrain_on={pretrain_on} is unknown; use unlabeled, train+unlabeled or train")
        self.root, self.pretrain_on = Path(root).expanduser(), pretrain_on

    def load(self) -> Loaded:
        folder = self.root / "stl10_binary"
        for name in (*(folder / name for name in FILES), self.root / self.archive):
            regular_or_absent(name)
        if not all((folder / name).is_file() for name in FILES):
            self._download()
        try:
            return self._read(folder)
        except (ValueError, OSError) as error:
            raise UserError(f"{folder} is damaged ({error}); remove it and unpack {self.archive} again") from error

    def _read(self, folder: Path) -> Loaded:
        classes = (folder / "class_names.txt").read_text().split()
        train = ArrayImages(read_images(folder / "train_X.bin"), read_labels(folder / "train_y.bin"), classes)
        test = ArrayImages(read_images(folder / "test_X.bin"), read_labels(folder / "test_y.bin"), classes)
        if self.pretrain_on == "train":
            return train, test
        parts = ["train", "unlabeled"] if self.pretrain_on == "train+unlabeled" else ["unlabeled"]
        pretraining = ArrayImages(read_images(*(folder / f"{part}_X.bin" for part in parts)))
        return pretraining, test, train

    def _download(self) -> None:
        try:
            datasets.STL10(str(self.root), split="test", download=True)
        except (OSError, RuntimeError) as error:  # no network, a full disk, a damaged archive
            raise UserError(
                f"{self.archive} is not in {self.root.absolute()} and cannot be downloaded ({error}); "
                f"put the file {self.address}/{self.archive} there"
            ) from error


def read_images(*paths: Path, chunk: int = 1000) -> Tensor:
    """The images of one or more files in a row, uint8 (N, 96, 96, 3); on disk they are (N, 3, width, height)."""
    stored = [np.memmap(path, np.uint8, mode="r").reshape(-1, 3, SIDE, SIDE) for path in paths]
    images = np.empty((sum(map(len, stored)), SIDE, SIDE, 3), np.uint8)
    row = 0
    for part in stored:
        for start in range(0, len(part), chunk):  # in chunks: the unlabelled part is 2.8 GB
            pixels = part[start : start + chunk].transpose(0, 3, 2, 1)
            images[row : row + len(pixels)] = pixels
            row += len(pixels)
    return torch.from_numpy(images)


def read_labels(path: Path) -> Tensor:
    """(N,) int64 from 0; on disk they count from 1."""
    return torch.from_numpy(np.fromfile(path, np.uint8).astype(np.int64) - 1)
