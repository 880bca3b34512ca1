"""What travels from the data to a method: `RawBatch`, as loaded, becomes `core.batch.Batch` on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ssl_lightning.core.batch import Batch, Padded, chunk, concat
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import TRAIN, Purpose

__all__ = ["Batch", "Drawn", "Padded", "RawBatch", "chunk", "concat", "drawn_by"]


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


Drawn = tuple[list[Any], tuple[str, ...]]  # V views of B items, and the role of each; () = all global


def drawn_by(hook: Callable[[RawBatch], Drawn], batch: RawBatch) -> Drawn:
    """What a modality's hook returns, refused where it is no pair of views and roles."""
    found = hook(batch)
    pair = isinstance(found, list | tuple) and len(found) == 2
    if pair and all(isinstance(part, list | tuple) for part in found):
        return found[0], found[1]
    raise UserError(
        f"{hook.__qualname__} returned {type(found).__name__}; return ([view, ...], roles), and roles is a "
        "tuple of one word per view, or () if all views are global"
    )
