"""Relative patch position: on which of eight sides of the middle tile does this other tile lie?

Doersch et al. 2015, "Unsupervised Visual Representation Learning by Context Prediction", https://arxiv.org/abs/1505.05192
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.methods.tiles import DRAWS, Tiles

MIDDLE = 4


class RelativePosition(SSLMethod):
    """Section 3 of the paper: both tiles pass the same network, a head sees what it says of the two.

    In training the features that are watched are the mean of both tiles. Tiles, channels and side are a function of
    seed, epoch and the image's index.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`.
        projector: called with 2 D, gives the module from both features to scores (B, 8).
        loss: scores (B, 8) against the sides (B,), e.g. `torch.nn.CrossEntropyLoss`.
        tile_size: pixels; at most a third of the image, and less leaves a gap between tiles.
        drop_colors: whether each tile keeps but one of its channels, drawn for it alone ("color dropping"): else a
            lens's aberration tells the place, and the network need not learn shapes.
        seed: of the tiles and channels.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    global_views = 1
    modality = "image"

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        tile_size: int = 64,
        drop_colors: bool = True,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        self.projector = projector(2 * out_dim(backbone))
        self.loss = self.scoring(loss, "scores", "sides")
        self.tiles = Tiles(tile_size, drop_colors)

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        self.tiles.check(sizes[0], self.backbone)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        tiles, number = self.tiles.cut(batch.views[0], self.draw(batch, DRAWS))  # (B, 9, 3, s, s), (B,)
        side = (number * 8).long()  # (B,), row by row around the middle
        other = side + (side >= MIDDLE)
        pair = torch.cat([tiles[:, MIDDLE], tiles[torch.arange(len(tiles), device=side.device), other]])
        middle, beside = self.backbone(pair).chunk(2)  # (B, D) each
        scores = self.projector(torch.cat([middle, beside], 1))  # (B, 8)
        mean = (middle + beside) / 2
        top1 = (scores.argmax(1) == side).float().mean()
        return self.output(self.loss(scores, side), mean, mean, side_top1=top1)
