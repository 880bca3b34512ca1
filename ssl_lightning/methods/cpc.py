"""CPC: from the rows of an image seen so far, tell the rows further down from all others.

van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", https://arxiv.org/abs/1807.03748;
on images as in Henaff et al. 2020, https://arxiv.org/abs/1905.09272.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.methods.tiles import check_tiles
from ssl_lightning.parts.tiles import drop_colors


class CPC(SSLMethod):
    """Section 2 of the first paper, on a grid of overlapping tiles. Its features in training are the mean over tiles.

    Nothing but `tiles` and `drop_colors` knows of images: a sequence is a grid one column wide. The second paper's
    encoder has no BatchNorm, which tells tiles of one batch of each other; that is not asked for here.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`; sees tiles in training.
        context: called with D, gives the module from (B, D, T, W) to (B, C, T, W) whose row t sees rows <= t, with
            `out_dim` = C, e.g. `RowContext`.
        loss: predictions and targets (R, D) to a scalar, e.g. `CPCLoss`.
        tile_size, stride: of the grid, pixels; 64 and 32 in the paper.
        offsets: how many rows down is predicted, from the first to the last number. The first should not overlap the
            last row seen: 2 where the stride is half a tile.
        drop_colors: whether each tile keeps but one of its channels, drawn for it alone (the second paper's
            "patch-based augmentation"); else the colours they share tell an image's tiles from all others.
        seed: of those channels, which are a function of it, the epoch, and the image's index.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    global_views = 1
    modality = "image"

    def __init__(
        self,
        backbone: nn.Module,
        context: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        tile_size: int = 64,
        stride: int = 32,
        offsets: tuple[int, int] = (2, 4),
        drop_colors: bool = True,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        if tile_size < 1 or stride < 1 or not 1 <= offsets[0] <= offsets[1]:
            raise UserError(
                f"cpc got tile_size={tile_size}, stride={stride}, offsets={list(offsets)}; the first two must be 1 or "
                "more, the offsets two rising numbers from 1"
            )
        dim = out_dim(backbone)
        self.context = context(dim)
        self.offsets = range(offsets[0], offsets[1] + 1)
        width = out_dim(self.context)
        self.predictors = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in self.offsets)  # W_k of equation 3
        self.loss = self.scoring(loss, "predictions", "targets")
        self.tile_size, self.stride = tile_size, stride
        self.drop_colors = drop_colors

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        rows = (sizes[0] - self.tile_size) // self.stride + 1
        if rows <= self.offsets[-1]:
            raise UserError(
                f"views of {sizes[0]} px have {max(rows, 0)} rows of tiles, too few to predict {self.offsets[-1]} rows "
                "down; lower method.tile_size, method.stride or method.offsets"
            )
        check_tiles(self.backbone, self.tile_size)

    def tiles(self, batch: Batch) -> Tensor:
        """The first view (B, 3, H, W) -> overlapping tiles (B, T, W, 3, tile_size, tile_size)."""
        found = batch.views[0].unfold(2, self.tile_size, self.stride).unfold(3, self.tile_size, self.stride)
        tiles = found.permute(0, 2, 3, 1, 4, 5)
        if not self.drop_colors:
            return tiles
        rows, columns = tiles.shape[1:3]
        return drop_colors(tiles, self.draw(batch, rows * columns).view(-1, rows, columns))

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        tiles = self.tiles(batch)
        z = self.backbone(tiles.flatten(0, 2)).unflatten(0, tiles.shape[:3])  # (B, T, W, D)
        seen = self.context(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, T, W, C)
        losses = []
        for k, predictor in zip(self.offsets, self.predictors, strict=True):
            predictions, targets = predictor(seen[:, :-k]), z[:, k:]  # (B, T - k, W, D) each
            losses.append(self.loss(predictions.flatten(0, 2), targets.flatten(0, 2)))
        features = z.mean((1, 2))  # (B, D)
        return self.output(torch.stack(losses).mean(), features, features)
