"""Jigsaw puzzles: in which of some permutations are the nine tiles of this image?

Noroozi & Favaro 2016, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
https://arxiv.org/abs/1603.09246
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.methods.tiles import DRAWS, Tiles
from ssl_lightning.parts.tiles import distant_permutations


class Jigsaw(SSLMethod):
    """The context-free network of the paper: every tile passes the backbone alone, what it says is put in a row.

    As no tile sees another one, the features are permuted and not the tiles. In training the features that are watched
    are the mean over an image's tiles. Tiles and permutation are a function of seed, epoch and the image's index.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`.
        projector: called with 9 D, gives the module from the row to scores of permutations (B, out_dim).
        loss: scores (B, P) against the permutations' numbers (B,), e.g. `torch.nn.CrossEntropyLoss`.
        tile_size: pixels; at most a third of the image, and less leaves a gap between tiles.
        drop_colors: whether each tile keeps but one of its channels, drawn for it alone; the paper shows some images in
            grey instead (`views.global_1.grayscale_p`).
        seed: of the puzzles.
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
        drop_colors: bool = False,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        self.projector = projector(9 * out_dim(backbone))
        self.loss = self.scoring(loss, "scores", "permutations")
        self.tiles = Tiles(tile_size, drop_colors)
        self.permutations: Tensor  # (P, 9): place p of puzzle k shows tile permutations[k, p]
        orders = distant_permutations(out_dim(self.projector))
        self.register_buffer("permutations", orders, persistent=False)

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        self.tiles.check(sizes[0], self.backbone)

    def puzzle(self, batch: Batch, epoch: int | None = None) -> tuple[Tensor, Tensor]:
        """Tiles (B, 9, 3, s, s) in their own order, and which permutation (B,) is asked for."""
        tiles, number = self.tiles.cut(batch.views[0], self.draw(batch, DRAWS, epoch=epoch))
        return tiles, (number * len(self.permutations)).long()

    def solve(self, tiles: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the tiles (B, 9, D) and scores of the permutations (B, P)."""
        features = self.backbone(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])  # (B, 9, D)
        order = self.permutations[chosen]  # (B, 9)
        row = features.gather(1, order[:, :, None].expand_as(features))
        return features, self.projector(row.flatten(1))

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        tiles, chosen = self.puzzle(batch)
        features, scores = self.solve(tiles, chosen)
        mean = features.mean(1)  # (B, D)
        top1 = (scores.argmax(1) == chosen).float().mean()
        return self.output(self.loss(scores, chosen), mean, mean, puzzle_top1=top1)

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """The image, the puzzle, and the puzzle as it is solved."""
        tiles, chosen = self.puzzle(batch, epoch=0)
        shown = self.permutations[chosen]
        answer = self.permutations[self.solve(tiles, chosen)[1].argmax(1)]
        # place p shows tile shown[p]; whoever believes in `answer` puts it back to place answer[p]
        solved = torch.zeros_like(shown).scatter_(1, answer, shown)
        return {"jigsaw": [batch.views[0], *(self._laid(tiles, order) for order in (shown, solved))]}

    @staticmethod
    def _laid(tiles: Tensor, order: Tensor) -> Tensor:
        """Tiles in an order (B, 9), laid out as one image (B, 3, 3 s, 3 s)."""
        tiles = tiles.gather(1, order[:, :, None, None, None].expand_as(tiles))
        return torch.cat([torch.cat([*row], 3) for row in tiles.unflatten(1, (3, 3)).permute(1, 2, 0, 3, 4, 5)], 2)
