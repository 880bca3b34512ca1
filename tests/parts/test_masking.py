"""Masks: the stated share, each patch hidden or visible and never both, and pixels that come back whole."""

import torch
from hypothesis import given
from hypothesis import strategies as some

from ssl_lightning.parts.masking import (
    BLOCK_DRAWS,
    block_mask,
    block_places,
    block_size,
    context_places,
    hidden_count,
    mask_of,
    patchify,
    random_places,
    unpatchify,
)
from tests.losses import reference_masked as paper

counts = some.integers(2, 60)
ratios = some.floats(0.01, 0.99)
seeds = some.integers(0, 1000)


def draws(batch: int, patches: int, seed: int) -> torch.Tensor:
    return torch.rand(batch, patches, generator=torch.Generator().manual_seed(seed))


@given(counts, ratios, seeds)
def test_a_patch_is_hidden_or_visible_and_the_share_is_the_stated_one(patches: int, ratio: float, seed: int) -> None:
    hidden = hidden_count(patches, ratio)
    assert 1 <= hidden <= patches - 1
    assert abs(hidden - ratio * patches) <= 1
    visible, mask = random_places(draws(4, patches, seed), hidden)
    assert (mask.sum(1) == hidden).all()
    for places, row in zip(visible.tolist(), mask, strict=True):
        assert places == (~row).nonzero().flatten().tolist()


def test_every_patch_is_hidden_equally_often() -> None:
    _, mask = random_places(draws(20_000, 16, 0), 12)
    share = mask.float().mean(0)
    assert (share - 0.75).abs().max() < 4 * (0.75 * 0.25 / 20_000) ** 0.5


def test_the_smallest_numbers_are_hidden() -> None:
    draw = torch.tensor([[0.5, 0.1, 0.9, 0.3]])
    visible, mask = random_places(draw, 2)
    assert visible.tolist() == [[0, 2]]
    assert mask.tolist() == [[False, True, False, True]]
    assert torch.equal(mask_of(visible, 4), mask)


@given(some.integers(1, 4), some.integers(1, 5), some.integers(1, 4), seeds)
def test_patches_are_the_papers_and_come_back_whole(batch: int, grid: int, size: int, seed: int) -> None:
    x = torch.randn(batch, 3, grid * size, grid * size, generator=torch.Generator().manual_seed(seed))
    patches = patchify(x, size)
    assert patches.shape == (batch, grid * grid, size * size * 3)
    for row, image in zip(patches, x, strict=True):
        assert torch.equal(row, torch.stack(paper.patches_of(image, size)))
    assert torch.equal(unpatchify(patches, size), x)


unit = some.floats(0, 0.999)


@given(some.integers(2, 20), some.floats(0.05, 0.6), some.floats(0.5, 2.0), unit, unit)
def test_a_block_covers_about_the_share_it_is_asked_for(
    grid: int, share: float, ratio: float, a: float, b: float
) -> None:
    height, width = block_size(grid, (share, share), (ratio, ratio), (a, b))
    assert 1 <= height <= grid
    assert 1 <= width <= grid
    if max(height, width) < grid and min(height, width) > 1:  # neither cut off nor raised to one
        assert abs(height - (share * ratio) ** 0.5 * grid) <= 0.5 + 1e-9
        assert abs(width - (share / ratio) ** 0.5 * grid) <= 0.5 + 1e-9


@given(some.integers(2, 12), some.integers(1, 12), some.integers(1, 12), unit, unit)
def test_a_block_lies_inside_the_image_and_is_whole(grid: int, height: int, width: int, a: float, b: float) -> None:
    size = (min(height, grid), min(width, grid))
    places = block_places(grid, size, torch.tensor([[a, b]]))[0].tolist()
    rows, columns = sorted({p // grid for p in places}), sorted({p % grid for p in places})
    assert places == [r * grid + c for r in rows for c in columns]
    assert rows == list(range(rows[0], rows[0] + size[0]))
    assert columns == list(range(columns[0], columns[0] + size[1]))
    assert rows[-1] < grid
    assert columns[-1] < grid


def test_a_block_reaches_every_corner() -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 0.999], [0.999, 0.0], [0.999, 0.999]])
    assert block_places(3, (2, 2), corners).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]


@given(some.integers(3, 8), some.integers(1, 4), seeds)
def test_no_target_is_ever_seen(grid: int, targets: int, seed: int) -> None:
    """The order begins with the block's own patches, and no target comes before the last patch that is none."""
    generator = torch.Generator().manual_seed(seed)
    hidden = block_places(grid, (2, 1), torch.rand(5, targets, 2, generator=generator))
    block = block_places(grid, (grid - 1, grid - 1), torch.rand(5, 2, generator=generator))
    order, inside = context_places(hidden, block, torch.rand(5, grid**2, generator=generator))
    for row in range(5):
        secret, own = set(hidden[row].flatten().tolist()), set(block[row].tolist())
        places = order[row].tolist()
        assert sorted(places) == list(range(grid**2))
        assert set(places[: inside[row]]) == own - secret
        assert set(places[grid**2 - len(secret) :]) == secret


@given(some.integers(2, 14), some.lists(some.integers(0, 195), min_size=1, max_size=5), seeds)
def test_blocks_hide_exactly_as_many_as_wanted(grid: int, hidden: list[int], seed: int) -> None:
    wanted = torch.tensor(hidden) % (grid * grid)
    draw = draws(len(hidden), BLOCK_DRAWS + grid * grid, seed)
    mask = block_mask(grid, wanted, draw)
    assert torch.equal(mask.sum(1), wanted)
    assert torch.equal(block_mask(grid, wanted[-1:], draw[-1:]), mask[-1:])  # each image by itself


def test_blocks_are_blocks() -> None:
    """A hidden patch has far more hidden neighbours than one that is hidden by itself."""
    wanted = torch.full((500,), 78)  # two fifths of 196
    mask = block_mask(14, wanted, draws(500, BLOCK_DRAWS + 196, 0)).view(500, 14, 14).float()
    beside = (mask[:, :, 1:] * mask[:, :, :-1]).sum() / mask[:, :, 1:].sum()
    assert beside > 0.75  # 0.4 by chance


def test_blocks_prefer_no_side() -> None:
    """The middle lies in more blocks than the corners do, as everywhere with blocks; the sides are alike."""
    hidden = block_mask(6, torch.full((4000,), 14), draws(4000, BLOCK_DRAWS + 36, 0))
    share = hidden.double().mean(0).view(6, 6)
    assert share.min() > 0.1
    for turned in (share.flip(0), share.flip(1), share.T):
        assert (share - turned).abs().max() < 4 * (2 * 0.25 / 4000) ** 0.5


def test_a_block_has_the_papers_area_and_shape() -> None:
    """With one block's worth to hide, what is hidden first is that block, cut to the number at random."""
    grid, draw = 14, torch.zeros(1, BLOCK_DRAWS + 196)
    draw[0, :4] = torch.tensor([0.0, 0.5, 0.0, 0.0])  # the least area, 16, square, in the first corner
    mask = block_mask(grid, torch.tensor([16]), draw).view(grid, grid)
    assert mask[:4, :4].all()
    draw[0, 1] = 0.0  # height over width 0.3: 2 x 7
    mask = block_mask(grid, torch.tensor([14]), draw).view(grid, grid)
    assert mask[:2, :7].all()
