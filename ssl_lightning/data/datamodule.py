"""The data module of images, under the name it had when there was no other modality."""

from ssl_lightning.data.image_data import ImageDataModule as DataModule
from ssl_lightning.data.image_data import Loaded, Split

__all__ = ["DataModule", "Loaded", "Split"]
