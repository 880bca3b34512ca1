"""What methods on tiles share: whether a network takes them, and the puzzles' nine of an image with a number."""

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import patch_sides, shown
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.models.channels import in_channels
from ssl_lightning.parts.tiles import cut_tiles, drop_colors


@torch.no_grad()
def check_tiles(backbone: nn.Module, size: int) -> None:
    """Refuses a network that does not take tiles of `size` px: patches that do not divide them, or a fixed size."""
    sides = patch_sides(backbone)
    if any(size % side for side in sides):
        raise UserError(f"patches of {shown(sides)} px do not divide tiles of {size} px; change method.tile_size")
    blank = torch.zeros(1, in_channels(backbone), size, size).to(next(backbone.parameters()))
    try:
        with evaluating(backbone):
            backbone(blank)
    except (AssertionError, RuntimeError, ValueError) as error:  # whatever a network of one size has to say
        raise UserError(
            f"this network does not take tiles of {size} px ({' '.join(str(error).split())[:120]}); choose another "
            "backbone or method.tile_size"
        ) from error


DRAWS = 28  # numbers for an image: 9 x 2 for where its tiles are, one to choose a puzzle, 9 for their channels


class Tiles:
    """Cuts a 3 x 3 grid of tiles where the numbers say that it is handed.

    Args:
        size: side of a tile in pixels; at most a third of the image, and less leaves a gap between tiles.
        drop_colors: whether each tile keeps but one of its channels, drawn for it alone.
    """

    def __init__(self, size: int, drop_colors: bool = False) -> None:
        self.size, self.drop_colors = size, drop_colors

    def check(self, image_size: int, backbone: nn.Module) -> None:
        """Refuses tiles that do not fit the cells of an image, or that the network does not take."""
        cell = image_size // 3
        if not 2 <= self.size <= cell:
            raise UserError(f"tiles of {self.size} px do not fit the cells of {cell} px; change method.tile_size")
        check_tiles(backbone, self.size)

    def cut(self, x: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), and numbers (B, DRAWS) in [0, 1) -> tiles (B, 9, 3, size, size), row by row, and one
        of the numbers for each image (B,)."""
        tiles = cut_tiles(x, 3, self.size, draw[:, :18])
        return drop_colors(tiles, draw[:, 19:]) if self.drop_colors else tiles, draw[:, 18]
