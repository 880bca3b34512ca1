"""Tiles stay in their cells, and the permutations of a jigsaw are far apart."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from ssl_lightning.core.errors import UserError
from ssl_lightning.parts.tiles import cut_tiles, distant_permutations, drop_colors


@given(some.integers(2, 6), some.integers(0, 3), some.integers(0, 1000))
def test_tiles_are_windows_of_their_cells(size: int, gap: int, seed: int) -> None:
    """Each tile is, before it is normalised, the window that the draw names."""
    generator = torch.Generator().manual_seed(seed)
    cell = size + gap
    x = torch.randn(2, 3, 3 * cell, 3 * cell, generator=generator, dtype=torch.float64)
    draw = torch.rand(2, 18, generator=generator)
    found = cut_tiles(x, 3, size, draw)
    assert found.shape == (2, 9, 3, size, size)
    for b in range(2):
        for t in range(9):
            top = t // 3 * cell + int(draw[b, t] * (gap + 1))
            left = t % 3 * cell + int(draw[b, 9 + t] * (gap + 1))
            for c in range(3):
                window = x[b, c, top : top + size, left : left + size]
                expected = (window - window.mean()) / (window.std() + 1e-5)
                torch.testing.assert_close(found[b, t, c], expected, atol=1e-12, rtol=0)


def test_tiles_tell_neither_light_nor_contrast() -> None:
    x, draw = torch.rand(2, 3, 12, 12, dtype=torch.float64), torch.rand(2, 18)
    torch.testing.assert_close(cut_tiles(0.5 * x + 0.2, 3, 4, draw), cut_tiles(x, 3, 4, draw), atol=1e-3, rtol=0)


def test_a_tile_keeps_one_channel() -> None:
    tiles = torch.rand(2, 3, 3, 4, 4)
    found = drop_colors(tiles, torch.tensor([[0.0, 0.33, 0.34], [0.66, 0.67, 0.999]]))
    for place, channel in {(0, 0): 0, (0, 1): 0, (0, 2): 1, (1, 0): 1, (1, 1): 2, (1, 2): 2}.items():
        torch.testing.assert_close(found[place][channel], tiles[place][channel], atol=0, rtol=0)
        assert not found[place][[c for c in range(3) if c != channel]].any()


def test_permutations_are_far_apart() -> None:
    """Nine differ in every place (a Latin square); a hundred in six or more, where random ones agree in one of nine."""

    def distances(orders: torch.Tensor) -> torch.Tensor:
        pairs = (orders[:, None] != orders[None]).sum(2)
        return pairs[~torch.eye(len(orders), dtype=torch.bool)]

    for count in (9, 100):
        orders = distant_permutations(count)
        assert orders.sort(1).values.tolist() == [list(range(9))] * count
        assert len({tuple(order) for order in orders.tolist()}) == count
    assert distances(distant_permutations(9)).min() == 9
    found = distances(distant_permutations(100))
    assert found.min() >= 6
    assert found.float().mean() > 8


def test_a_count_that_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="3 tiles have 6 permutations; choose from 2 to as many, not 7"):
        distant_permutations(7, tiles=3)
