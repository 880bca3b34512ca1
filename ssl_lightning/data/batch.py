"""What travels from the data to a method: `RawBatch` (uint8, as loaded) becomes `core.batch.Batch` on the device."""

from typing import NamedTuple

from torch import Tensor

from ssl_lightning.core.batch import Batch, Padded, chunk, concat

__all__ = ["Batch", "Padded", "RawBatch", "chunk", "concat"]


class RawBatch(NamedTuple):
    """A batch as it leaves a loader, before `DataModule.on_after_batch_transfer`.

    Args:
        images: one uint8 tensor (B, H, W, C), or one already cropped uint8 (B, h, w, C) tensor per view, or
            one finished float (B, C, h, w) tensor per view (engine "worker").
        labels: (B,) int64.
        indices: (B,) int64.
        epoch: epoch these images are drawn in; below 0 for evaluation (see `sampler`).
        broken: (K,) int64, rows whose file could not be decoded and was replaced by the next good one.
    """

    images: Tensor | list[Tensor]
    labels: Tensor
    indices: Tensor
    epoch: int
    broken: Tensor
