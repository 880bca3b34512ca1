"""Masks: the stated share, each patch hidden or visible and never both, and pixels that come back whole."""

import torch
from hypothesis import given
from hypothesis import strategies as some

from ssl_lightning.models.masking import hidden_count, mask_of, patchify, random_places, unpatchify
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
