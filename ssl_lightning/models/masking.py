"""Which patches of an image are hidden. In a mask, True is hidden; places count patches row by row.

Nothing here is random: the numbers to draw from are handed in, so that an image's mask can be a function of its index.
"""

import torch
from torch import Tensor


def hidden_count(patches: int, ratio: float) -> int:
    """How many of so many patches are hidden: as MAE rounds, never all and never none where 0 < ratio < 1."""
    return min(max(patches - int(patches * (1 - ratio)), 1), patches - 1)


def random_places(draw: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """Uniform masking: the `hidden` patches with the smallest of the uniform numbers `draw` (B, N) are hidden.

    Returns the visible places (B, N - hidden), ascending, and the mask (B, N).
    """
    visible = draw.argsort(dim=1, stable=True)[:, hidden:].sort(1).values
    return visible, mask_of(visible, draw.shape[1])


def mask_of(visible: Tensor, patches: int) -> Tensor:
    """(B, K) visible places -> (B, N) bool, True where hidden."""
    mask = torch.ones(len(visible), patches, dtype=torch.bool, device=visible.device)
    return mask.scatter_(1, visible, False)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Images (B, C, H, W) -> their patches (B, N, patch_size * patch_size * C), pixels row by row, channels last."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    x = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size * patch_size * channels)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """The inverse of `patchify` for square images."""
    batch, count, values = patches.shape
    side, channels = round(count**0.5), values // patch_size**2
    x = patches.reshape(batch, side, side, patch_size, patch_size, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, side * patch_size, side * patch_size)
