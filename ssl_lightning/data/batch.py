"""What travels from the data to a method: `RawBatch`, as loaded, becomes `core.batch.Batch` on the device."""

from typing import Any, NamedTuple

from torch import Tensor

from ssl_lightning.core.batch import Batch, Padded, chunk, concat
from ssl_lightning.data.sampler import TRAIN, Purpose

__all__ = ["Batch", "Padded", "RawBatch", "chunk", "concat"]


class RawBatch(NamedTuple):
    """A batch as it leaves a loader, before `DataModule.on_after_batch_transfer`.

    Args:
        items: what the modality's fetch made of B items: tensors, or structures that move to a device. Of images one
            uint8 tensor (B, H, W, C), or one already cropped uint8 (B, h, w, C) tensor per view, or, of engine
            "worker", one finished float (B, C, h, w) tensor per view.
        labels: (B,) int64, or (B, T) float32; see `core.batch.Batch`.
        indices: (B,) int64.
        epoch: epoch these items are drawn in; of no meaning but for "train".
        broken: (K,) int64, rows whose file could not be read and was replaced by the next good one.
        purpose: what the batch is for: "train", "evaluate", or "fill", which holds no item and fills up a rank.
    """

    items: Any
    labels: Tensor
    indices: Tensor
    epoch: int
    broken: Tensor
    purpose: Purpose = TRAIN

    @property
    def images(self) -> Any:
        """`items`, by the name they had when all were images."""
        return self.items
