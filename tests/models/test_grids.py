"""Patches, positions and blocks on grids of 1, 2 and 3 axes, also of unequal sides, against loops."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from ssl_lightning.core.errors import UserError
from ssl_lightning.models.sincos import sincos_positions
from ssl_lightning.parts.masking import (
    BLOCK_DRAWS,
    BLOCKS,
    block_mask,
    block_places,
    block_size,
    enlarged,
    patchify,
    unpatchify,
)

GRIDS = [(6,), (3, 5), (4, 4), (1, 7), (7, 1), (2, 3, 4)]
grids = some.lists(some.integers(1, 5), min_size=1, max_size=3).map(tuple)
seeds = some.integers(0, 1000)


def cells(grid: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The places of a grid in order, the last axis fastest."""
    return list(product(*map(range, grid)))


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(grids, seeds)
def test_patches_are_cut_along_every_axis(grid: tuple[int, ...], seed: int) -> None:
    sides = (2, 3, 1)[: len(grid)]
    x = draws(2, 3, *(n * side for n, side in zip(grid, sides)), seed=seed)
    patches = patchify(x, sides)
    for number, cell in enumerate(cells(grid)):
        values = [
            x[1, c, *(place * side + step for place, side, step in zip(cell, sides, steps))]
            for steps in cells(sides)
            for c in range(3)
        ]
        assert torch.equal(patches[1, number], torch.stack(values))
    assert torch.equal(unpatchify(patches, sides, grid), x)


@pytest.mark.parametrize("grid", GRIDS)
def test_positions_have_an_equal_share_for_each_axis(grid: tuple[int, ...]) -> None:
    found, share = sincos_positions(grid, 12), 12 // len(grid)
    for row, cell in zip(found, cells(grid), strict=True):
        expected: list[float] = []
        for place in reversed(cell):
            angles = [place / 10000 ** (k / (share // 2)) for k in range(share // 2)]
            expected += [*map(math.sin, angles), *map(math.cos, angles)]
        np.testing.assert_allclose(row.numpy(), expected, atol=1e-6)
    assert len({tuple(row.tolist()) for row in found}) == len(found)
    assert torch.equal(sincos_positions(4, 12), sincos_positions((4, 4), 12))
    with pytest.raises(UserError, match="of three axes need a width that is a multiple of 6, not 8"):
        sincos_positions((2, 2, 2), 8)


@settings(max_examples=30, deadline=None)
@given(grids, seeds)
def test_a_block_is_whole_and_lies_inside(grid: tuple[int, ...], seed: int) -> None:
    draw = draws(4, 3, len(grid), seed=seed)
    size = tuple(1 + seed % side for side in grid)
    places = block_places(grid, size, draw)
    for item, block in product(range(4), range(3)):
        start = [int(d * (side - n + 1)) for d, side, n in zip(draw[item, block].tolist(), grid, size)]
        inside = [
            number
            for number, cell in enumerate(cells(grid))
            if all(s <= place < s + n for place, s, n in zip(cell, start, size))
        ]
        assert places[item, block].tolist() == inside


def test_a_block_covers_its_share_of_every_grid() -> None:
    half = ((0.5, 0.5), (1.0, 1.0), (0.0, 0.0))
    assert block_size((20,), *half) == (10,)
    assert block_size((1, 20), *half) == (1, 10)
    assert block_size((20, 1), *half) == (10, 1)
    assert block_size((8, 8), *half) == block_size(8, *half) == (6, 6)
    assert block_size((4, 16), *half) == (4, 6)  # the height is cut off, as in the authors' code
    assert block_size((3, 8, 8), *half) == (3, 6, 6)  # a tube that lasts


def naive_mask(grid: tuple[int, ...], hidden: int, draw: list[float]) -> list[bool]:
    """BEiT's blocks of one item, one after another; of three axes the first is time."""
    time, tall, wide = (1, 1, *grid)[-3:]
    first = [BLOCKS] * (tall * wide)
    least = max(1.0, 16 / 196 * time * tall * wide)
    for number in range(BLOCKS):
        share, shape, down, along = draw[4 * number : 4 * number + 4]
        left = hidden - time * sum(block < BLOCKS for block in first)
        area = (least + share * max(left - least, 0)) / time
        ratio = 0.3 ** (1 - 2 * shape)
        height, width = (area * ratio) ** 0.5, (area / ratio) ** 0.5
        if tall == 1 or wide == 1:
            height = width = area
        height, width = min(max(round(height), 1), tall), min(max(round(width), 1), wide)
        top, start = int(down * (tall - height + 1)), int(along * (wide - width + 1))
        for row, column in product(range(top, top + height), range(start, start + width)):
            first[row * wide + column] = min(first[row * wide + column], number)
    order = [block + lot for block, lot in zip(first * time, draw[BLOCK_DRAWS:], strict=True)]
    chosen = sorted(range(len(order)), key=lambda place: order[place])[:hidden]
    return [place in chosen for place in range(len(order))]


@settings(max_examples=40, deadline=None)
@given(some.sampled_from(GRIDS), seeds, some.integers(0, 11))
def test_blocks_are_hidden_one_after_another(grid: tuple[int, ...], seed: int, hidden: int) -> None:
    patches = math.prod(grid)
    wanted = torch.tensor([hidden, 3]) % patches
    draw = draws(2, BLOCK_DRAWS + patches, seed=seed)
    mask = block_mask(grid, wanted, draw)
    assert torch.equal(mask.sum(1), wanted)
    for row, count, numbers in zip(mask.tolist(), wanted.tolist(), draw.tolist()):
        assert row == naive_mask(grid, count, numbers)
    if grid == (4, 4):
        assert torch.equal(mask, block_mask(4, wanted, draw))


def test_blocks_of_a_sequence_are_spans() -> None:
    """With one block's worth to hide, that is one span; a uniform mask would have some twenty."""
    wanted = torch.full((200,), 40)
    mask = block_mask((100,), wanted, draws(200, BLOCK_DRAWS + 100)).long()
    spans = (mask.diff(dim=1, prepend=torch.zeros(200, 1, dtype=torch.long)) == 1).sum(1)
    assert spans.double().mean() < 6


def test_blocks_of_a_film_last() -> None:
    """What is hidden at one time is hidden at all, but for the last block, which is cut to the number."""
    mask = block_mask((4, 6, 6), torch.full((100,), 72), draws(100, BLOCK_DRAWS + 144)).view(100, 4, 36)
    always = mask.all(1).sum(1)
    assert (4 * always).double().mean() > 0.5 * 72
    assert (mask.any(1).sum(1) < 36).double().mean() > 0.5


def test_a_coarse_mask_covers_whole_patches() -> None:
    mask = torch.tensor([[True, False, False, True, False, True]])
    fine = enlarged(mask, (2, 3), (2, 1))
    assert fine.view(4, 3).tolist() == [[True, False, False]] * 2 + [[True, False, True]] * 2
    assert enlarged(mask, (6,), (2,)).view(6, 2).tolist() == [[hidden] * 2 for hidden in mask[0].tolist()]
