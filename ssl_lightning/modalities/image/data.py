"""The data module of images, under the name it had when there was no other modality."""

from ssl_lightning.modalities.image.hooks import ImageDataModule as DataModule
from ssl_lightning.modalities.image.hooks import Loaded, Split

__all__ = ["DataModule", "Loaded", "Split"]
