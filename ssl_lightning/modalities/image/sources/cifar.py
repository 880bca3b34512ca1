"""`data=cifar10` and `data=cifar100`: 60,000 images of 32 x 32 (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from pathlib import Path
from typing import Any

from torchvision import datasets

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import ArrayImages, regular_or_absent


class CIFAR10(DataModule):
    """50,000 training and 10,000 test images in 10 classes, held in memory; downloaded when absent.

    Args:
        root: folder of the download.
        loading: see `DataModule`.
    """

    archive = "cifar-10-python.tar.gz"
    address = "https://www.cs.toronto.edu/~kriz"

    def __init__(self, root: str | Path = "data", **loading: Any):
        super().__init__(**loading)
        self.root = Path(root).expanduser()

    def source(self) -> type[datasets.CIFAR10]:
        return datasets.CIFAR10

    def load(self) -> Loaded:
        return self._part(train=True), self._part(train=False)

    def _part(self, train: bool) -> ArrayImages:
        source = self.source()
        batches = [source.meta["filename"], *(name for name, _ in source.train_list + source.test_list)]
        for name in (self.archive, *(f"{source.base_folder}/{batch}" for batch in batches)):
            regular_or_absent(self.root / name)
        try:
            data = source(str(self.root), train=train, download=True)
        except (OSError, RuntimeError) as error:  # no network, a full disk, a damaged archive
            raise UserError(
                f"{self.archive} is not in {self.root.absolute()} and cannot be downloaded ({error}); "
                f"put the file {self.address}/{self.archive} there"
            ) from error
        return ArrayImages(data.data, data.targets, data.classes)


class CIFAR100(CIFAR10):
    """As `CIFAR10`, in 100 classes."""

    archive = "cifar-100-python.tar.gz"

    def source(self) -> type[datasets.CIFAR10]:
        return datasets.CIFAR100
