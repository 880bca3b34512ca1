"""Which patches of an item are hidden, on a grid of 1, 2 or 3 axes. In a mask, True is hidden; places count patches
along the grid, the last axis fastest (of an image row by row).

Blocks are spans on one axis, rectangles on two. Of three axes the first one is time: blocks are tubes that last from
its start to its end, as in V-JEPA (Bardes et al. 2024, https://arxiv.org/abs/2404.08471).

Nothing here is random: the numbers to draw from are handed in, so that an item's mask can be a function of its index.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Grid = int | Sequence[int]  # one number is a square of that side


def sides_of(grid: Grid) -> tuple[int, ...]:
    """Places along each axis of a grid."""
    return (grid, grid) if isinstance(grid, int) else tuple(grid)


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


def enlarged(mask: Tensor, grid: Sequence[int], units: Sequence[int]) -> Tensor:
    """A mask (B, N) of a coarse grid -> that of a grid whose axes have so many times as many places."""
    mask = mask.unflatten(1, tuple(grid))
    for axis, unit in enumerate(units):
        mask = mask.repeat_interleave(unit, axis + 1)
    return mask.flatten(1)


def take(patches: Tensor, places: Tensor) -> Tensor:
    """The patches (B, N, D) at the places (B, K): (B, K, D)."""
    return patches.gather(1, places[:, :, None].expand(-1, -1, patches.shape[2]))


def patchify(items: Tensor, sides: int | Sequence[int]) -> Tensor:
    """Items (B, C, ...) of A axes -> their patches (B, N, values), a patch's pixels in order, channels last.

    `sides`: of a patch, pixels; one number for all axes.
    """
    batch, channels, *lengths = items.shape
    sides = (sides,) * len(lengths) if isinstance(sides, int) else tuple(sides)
    grid = [length // side for length, side in zip(lengths, sides, strict=True)]
    axes = len(grid)
    x = items.reshape(batch, channels, *(n for pair in zip(grid, sides) for n in pair))
    x = x.permute(0, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2), 1)  # (B, *grid, *sides, C)
    return x.reshape(batch, math.prod(grid), math.prod(sides) * channels)


def unpatchify(patches: Tensor, sides: int | Sequence[int], grid: Sequence[int] | None = None) -> Tensor:
    """The inverse of `patchify`, for items of this grid; without one, for square images."""
    batch, count, values = patches.shape
    grid = (round(count**0.5),) * 2 if grid is None else tuple(grid)
    axes = len(grid)
    sides = (sides,) * axes if isinstance(sides, int) else tuple(sides)
    x = patches.reshape(batch, *grid, *sides, values // math.prod(sides))
    x = x.permute(0, 1 + 2 * axes, *(n for a in range(axes) for n in (1 + a, 1 + axes + a)))
    return x.reshape(batch, -1, *(n * side for n, side in zip(grid, sides)))


def block_size(
    grid: Grid, scale: tuple[float, float], aspect: tuple[float, float], draw: tuple[float, float]
) -> tuple[int, ...]:
    """Sides, in patches, of a block that covers a drawn share of a grid with a drawn height over width.

    I-JEPA's rule (Assran et al. 2023, appendix A.1, https://arxiv.org/abs/2301.08243); both draws in [0, 1). On a grid
    that is one patch high or wide, or has one axis, the length is all that is drawn.
    """
    time, rows, columns = _planar(grid)
    area = rows * columns * (scale[0] + draw[0] * (scale[1] - scale[0]))
    ratio = aspect[0] + draw[1] * (aspect[1] - aspect[0])
    height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
    if min(rows, columns) == 1:
        height = width = round(area)
    size = (time, min(max(height, 1), rows), min(max(width, 1), columns))
    return size[3 - len(sides_of(grid)) :]


def block_places(grid: Grid, size: Sequence[int], draw: Tensor) -> Tensor:
    """Blocks of one size, put where `draw` (..., axes) in [0, 1) says: places (..., patches of a block), in order."""
    places = torch.zeros((*draw.shape[:-1], 1), dtype=torch.long, device=draw.device)
    for axis, (side, length) in enumerate(zip(sides_of(grid), size, strict=True)):
        start = (draw[..., axis] * (side - length + 1)).long()
        along = start[..., None] + torch.arange(length, device=draw.device)  # (..., length)
        places = (places[..., :, None] * side + along[..., None, :]).flatten(-2)
    return places


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


def block_mask(grid: Grid, hidden: Tensor, draw: Tensor) -> Tensor:
    """Hides so many patches (B,) of each item in blocks, one after another: mask (B, N), True = hidden.

    BEiT's rule (Bao et al. 2022, algorithm 1, https://arxiv.org/abs/2106.08254): a block covers from 16 of 196 patches
    to all that are still to be hidden, its height over width lies between 0.3 and 1 / 0.3, evenly in the logarithm.
    Of the last block only as many patches are hidden as are wanted, at random, so that the number is exact.

    Args:
        draw: uniform numbers (B, BLOCK_DRAWS + N) in [0, 1).
    """
    time, tall, wide = _planar(grid)
    blocks = draw[:, :BLOCK_DRAWS].view(-1, BLOCKS, 4)
    first = torch.full((len(draw), tall, wide), float(BLOCKS), device=draw.device)  # the first block that covers it
    least = max(1.0, math.prod(sides_of(grid), start=16 / 196))
    for number in range(BLOCKS):
        share, shape, down, along = blocks[:, number].unbind(1)  # (B,) each
        left = hidden - time * (first < BLOCKS).sum((1, 2))
        area = (least + share * (left - least).clamp_min(0)) / time
        ratio = 0.3 ** (1 - 2 * shape)
        height, width = (area * ratio).sqrt(), (area / ratio).sqrt()
        if min(tall, wide) == 1:
            height = width = area
        rows = _covered(height.round().clamp(1, tall), down, tall)  # (B, tall)
        columns = _covered(width.round().clamp(1, wide), along, wide)
        first = torch.where(rows[:, :, None] & columns[:, None, :], first.clamp_max(number), first)
    order = first.flatten(1).repeat(1, time) + draw[:, BLOCK_DRAWS:]
    return order.argsort(dim=1, stable=True).argsort(1) < hidden[:, None]


def _covered(length: Tensor, draw: Tensor, side: int) -> Tensor:
    """Which of `side` places a span of each length (B,) covers, put where `draw` (B,) says: (B, side) bool."""
    start = (draw * (side - length + 1)).floor()
    places = torch.arange(side, device=draw.device)
    return (places >= start[:, None]) & (places < (start + length)[:, None])


def _planar(grid: Grid) -> tuple[int, int, int]:
    """Time, rows and columns of a grid: one axis has columns alone."""
    time, rows, columns = (1, 1, *sides_of(grid))[-3:]
    return time, rows, columns
