"""Tiles of an image: where they are cut, what of their colours is seen, and in which permutations they are shown."""

from functools import cache
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError


def cut_tiles(x: Tensor, grid: int, size: int, draw: Tensor) -> Tensor:
    """Images (B, 3, H, W) -> tiles (B, grid * grid, 3, size, size), row by row, one of each cell of a grid.

    Where in its cell a tile is cut is drawn: `draw` (B, 2 * grid * grid) in [0, 1). The gap that this leaves keeps
    lines at the edges from telling neighbours, and each tile is normalised to mean 0 and deviation 1 in each channel,
    so that brightness and colour do not tell either (Noroozi & Favaro 2016, section 3.4, https://arxiv.org/abs/1603.09246).
    A lens's chromatic aberration may still tell the place in photographs of a camera; against it the papers show images
    in grey (jigsaw: `views.global_1.grayscale_p`) or single channels (`drop_colors`).
    """
    count, cell = grid * grid, min(x.shape[-2:]) // grid
    offset = (draw * (cell - size + 1)).long().view(len(x), 2, count)  # (B, 2, T)
    place = torch.arange(count, device=x.device)
    top = cell * (place // grid) + offset[:, 0]  # (B, T)
    left = cell * (place % grid) + offset[:, 1]
    step = torch.arange(size, device=x.device)
    rows, columns = (top[..., None] + step)[..., :, None], (left[..., None] + step)[..., None, :]  # (B, T, s, 1), ...
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)
    tiles = x.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 1, 4, 2, 3)  # (B, T, 3, s, s)
    mean, deviation = tiles.mean((3, 4), keepdim=True), tiles.std((3, 4), keepdim=True)
    return (tiles - mean) / (deviation + 1e-5)


def drop_colors(tiles: Tensor, draw: Tensor) -> Tensor:
    """Tiles (..., C, s, s) of which each keeps one channel, drawn by `draw` (...) in [0, 1), and 0 in the others.

    0 is the mean colour of normalised images. Color dropping of Doersch et al. 2015,
    https://arxiv.org/abs/1505.05192, where a little noise stands in place of 0.
    """
    channels = tiles.shape[-3]
    kept = (draw * channels).long()[..., None] == torch.arange(channels, device=draw.device)  # (..., C)
    return tiles * kept[..., None, None]


@cache
def distant_permutations(count: int, tiles: int = 9) -> Tensor:
    """`count` permutations (count, tiles) that differ from each other in many places: the labels of a jigsaw puzzle.

    Greedy, after algorithm 1 of Noroozi & Favaro 2016: starting from the order itself, the permutation is added that is
    farthest from those chosen (in Hamming distance from the nearest; of equals, from all together; of these the first).

    Raises:
        UserError: more permutations than there are.
    """
    every = np.array(list(permutations(range(tiles))), dtype=np.int8).T.copy()  # (tiles, tiles!): fast to compare
    if not 2 <= count <= every.shape[1]:
        raise UserError(f"{tiles} tiles have {every.shape[1]} permutations; choose from 2 to as many, not {count}")
    chosen = [0]
    nearest = np.full(every.shape[1], tiles, dtype=np.int32)
    total = np.zeros(every.shape[1], dtype=np.int32)
    while len(chosen) < count:
        distance = (every != every[:, chosen[-1], None]).sum(0, dtype=np.uint8)
        np.minimum(nearest, distance, out=nearest)
        total += distance
        chosen.append(int(np.argmax(nearest * (tiles * count) + total)))
    return torch.from_numpy(every[:, chosen].T.astype(np.int64))
