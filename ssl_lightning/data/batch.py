"""What travels from the data to a method: `RawBatch` (uint8, as loaded) becomes `Batch` (float views) on the device."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A training or evaluation batch, ready for a network.

    Args:
        views: V tensors (B, C, h, w), float32, normalised; global crops first, then local crops.
        labels: (B,) int64, -1 where there is none.
        indices: (B,) int64, the row of each image in its source set.
    """

    views: list[Tensor]
    labels: Tensor
    indices: Tensor

    @property
    def global_views(self) -> list[Tensor]:
        """The views as large as the first one."""
        return [v for v in self.views if v.shape[-1] >= self.views[0].shape[-1]]

    @property
    def local_views(self) -> list[Tensor]:
        """The views smaller than the first one; empty without multi-crop."""
        return [v for v in self.views if v.shape[-1] < self.views[0].shape[-1]]


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
