"""A source whose workers come to grief at a chosen image, and the run of it: for tests with real processes."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import ArrayImages, ImageSet


class Failing(ImageSet):
    """Images from memory; the one at `row` ends its worker in the given way, once `mark` is there."""

    def __init__(self, images: ArrayImages, row: int, how: str, mark: Path) -> None:
        self.images, self.labels, self.classes = images, images.labels, images.classes
        self.row, self.how, self.mark = row, how, mark

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Tensor:
        if index == self.row and self.mark.exists() and torch.utils.data.get_worker_info() is not None:
            self.fail()
        return self.images.image(index)

    def fail(self) -> None:
        match self.how:
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hung":
                time.sleep(1000)
            case "shm":
                raise RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)")
            case "mistake":
                raise UserError("data.root=x is no folder")
            case "bug":
                raise KeyError("the image is odd")
            case "exit":
                os._exit(3)
            case _:
                os.kill(os.getpid(), getattr(signal, self.how))

    def subset(self, rows: Tensor) -> ImageSet:
        return self.images.subset(rows)


class FailingData(DataModule):
    """Random images, the training set or the test set `Failing`."""

    def __init__(self, how: str, mark: str, split: str = "train", **loading: Any) -> None:
        super().__init__(**loading)
        self.how, self.mark, self.split = how, Path(mark), split

    def load(self) -> Loaded:
        generator = torch.Generator().manual_seed(0)
        sets: list[ImageSet] = []
        for name, size in (("train", 64), ("test", 32)):
            pixels = torch.randint(0, 256, (size, 40, 40, 3), generator=generator, dtype=torch.uint8)
            images = ArrayImages(pixels, torch.arange(size) % 4, ["a", "b", "c", "d"])
            sets.append(Failing(images, 20, self.how, self.mark) if name == self.split else images)
        return sets[0], sets[1]
