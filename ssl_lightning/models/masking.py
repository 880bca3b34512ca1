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


def block_size(
    grid: int, scale: tuple[float, float], aspect: tuple[float, float], draw: tuple[float, float]
) -> tuple[int, int]:
    """Height and width, in patches, of a block that covers a drawn share of a grid with a drawn height over width.

    I-JEPA's rule (Assran et al. 2023, appendix A.1, https://arxiv.org/abs/2301.08243); both draws in [0, 1).
    """
    area = grid * grid * (scale[0] + draw[0] * (scale[1] - scale[0]))
    ratio = aspect[0] + draw[1] * (aspect[1] - aspect[0])
    height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
    return min(max(height, 1), grid), min(max(width, 1), grid)


def block_places(grid: int, size: tuple[int, int], draw: Tensor) -> Tensor:
    """Blocks of one size, put where `draw` (..., 2) in [0, 1) says: places (..., height * width), row by row."""
    height, width = size
    top = (draw[..., 0] * (grid - height + 1)).long()
    left = (draw[..., 1] * (grid - width + 1)).long()
    rows = top[..., None] + torch.arange(height, device=draw.device)  # (..., height)
    columns = left[..., None] + torch.arange(width, device=draw.device)  # (..., width)
    return (rows[..., :, None] * grid + columns[..., None, :]).flatten(-2)


def context_places(targets: Tensor, block: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
    """Patches to see, given places of targets (B, M, K) and of a context block (B, L): an order, and how many count.

    Returns places (B, N), first the patches of the block that are no target, in an order that `draw` (B, N) gives, then
    the others that are no target, at last the targets; and for each image how many there are of the first kind (B,).
    """
    batch, patches = draw.shape
    nothing = torch.zeros(batch, patches, dtype=torch.bool, device=draw.device)
    is_target = nothing.scatter(1, targets.flatten(1), True)
    inside = nothing.scatter(1, block, True) & ~is_target
    kind = torch.where(is_target, 2.0, torch.where(inside, 0.0, 1.0))
    return (kind + draw).argsort(dim=1, stable=True), inside.sum(1)


BLOCKS = 16  # tried for an image; what they leave to hide is hidden patch by patch
BLOCK_DRAWS = 4 * BLOCKS  # numbers that `block_mask` needs beside one for each patch


def block_mask(grid: int, hidden: Tensor, draw: Tensor) -> Tensor:
    """Hides so many patches (B,) of each image in blocks, one after another: mask (B, grid * grid), True = hidden.

    BEiT's rule (Bao et al. 2022, algorithm 1, https://arxiv.org/abs/2106.08254): a block covers from 16 of 196 patches
    to all that are still to be hidden, its height over width lies between 0.3 and 1 / 0.3, evenly in the logarithm.
    Of the last block only as many patches are hidden as are wanted, at random, so that the number is exact.

    Args:
        draw: uniform numbers (B, BLOCK_DRAWS + grid * grid) in [0, 1).
    """
    blocks = draw[:, :BLOCK_DRAWS].view(-1, BLOCKS, 4)
    first = torch.full((len(draw), grid, grid), float(BLOCKS), device=draw.device)  # the first block that covers it
    places = torch.arange(grid, device=draw.device)
    least = max(1.0, 16 / 196 * grid * grid)
    for number in range(BLOCKS):
        share, shape, down, along = blocks[:, number].unbind(1)  # (B,) each
        left = hidden - (first < BLOCKS).sum((1, 2))
        area = least + share * (left - least).clamp_min(0)
        ratio = 0.3 ** (1 - 2 * shape)
        height = (area * ratio).sqrt().round().clamp(1, grid)
        width = (area / ratio).sqrt().round().clamp(1, grid)
        top, start = (down * (grid - height + 1)).floor(), (along * (grid - width + 1)).floor()
        rows = (places >= top[:, None]) & (places < (top + height)[:, None])  # (B, grid)
        columns = (places >= start[:, None]) & (places < (start + width)[:, None])
        inside = rows[:, :, None] & columns[:, None, :]
        first = torch.where(inside, first.clamp_max(number), first)
    order = first.flatten(1) + draw[:, BLOCK_DRAWS:]
    return order.argsort(dim=1, stable=True).argsort(1) < hidden[:, None]
