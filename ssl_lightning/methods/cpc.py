"""CPC: from what has been seen or heard so far, tell what comes next from all that does not.

van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", https://arxiv.org/abs/1807.03748;
on images as in Henaff et al. 2020, https://arxiv.org/abs/1905.09272.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import map_encoder, out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.methods.tiles import check_tiles
from ssl_lightning.models.context import InContext, check_sequence
from ssl_lightning.parts.tiles import drop_colors


class CPC(SSLMethod):
    """Section 2 of the first paper, on a grid of things (B, T, W) that is read from row to row.

    Images are cut into overlapping tiles, each of which passes the backbone for itself. Sequences (`tile_size` null)
    pass it whole: the steps of its map (B, D, T) are a grid one column wide, as in section 3.1. The second paper's
    encoder has no BatchNorm, which tells tiles of one batch of each other; that is not asked for here.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`; sees tiles in training. Of sequences:
            `feature_map` gives (B, D, T), each step of a part of the item (`InContext`).
        context: called with D, gives the module from (B, D, T, W) to (B, C, T, W) whose row t sees rows <= t, with
            `out_dim` = C, e.g. `RowContext`, `GRUContext`, `TransformerContext`.
        loss: predictions and targets to a scalar, e.g. `CPCLoss`: (R, D), or (B, S, D) with S places for each item
            where the loss says so (`by_item`).
        tile_size, stride: of the grid, pixels; 64 and 32 in the paper. tile_size None: the items are sequences.
        offsets: how many rows down (steps ahead) is predicted, from the first to the last number. The first should not
            overlap the last row seen: 2 where the stride is half a tile. The paper has 1 to 12 on sound.
        drop_colors: whether each tile keeps but one of its channels, drawn for it alone (the second paper's
            "patch-based augmentation"); else the colours they share tell an image's tiles from all others.
        readout: whose features are judged and exported: "backbone", or of sequences also "context", the mean over
            time of what the context network makes of the backbone's steps.
        seed: of those channels, which are a function of it, the epoch, and the image's index.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    global_views = 1

    def __init__(
        self,
        backbone: nn.Module,
        context: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        tile_size: int | None = 64,
        stride: int = 32,
        offsets: tuple[int, int] = (2, 4),
        drop_colors: bool = True,
        readout: Literal["backbone", "context"] = "backbone",
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        if (tile_size is not None and tile_size < 1) or stride < 1 or not 1 <= offsets[0] <= offsets[1]:
            raise UserError(
                f"cpc got tile_size={tile_size}, stride={stride}, offsets={list(offsets)}; the first two must be 1 or "
                "more, the offsets two rising numbers from 1"
            )
        self.tile_size, self.stride, self.drop_colors = tile_size, stride, drop_colors
        self.offsets = range(offsets[0], offsets[1] + 1)
        self._make_networks(context, readout)
        encoder, seen = self.networks
        dim, width = out_dim(encoder), out_dim(seen)
        self.predictors = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in self.offsets)  # W_k of equation 3
        self.loss = self.scoring(loss, "predictions", "targets")

    def _make_networks(self, context: Callable[[int], nn.Module], readout: str) -> None:
        """The context network: within the backbone where both are read, else beside it."""
        if self.tile_size is None:
            check_sequence(self.backbone)
        elif readout == "context":
            raise UserError("method.readout=context is for sequences (method.tile_size=null); images have backbone")
        if readout == "backbone":
            self.context = context(out_dim(self.backbone))
        elif not isinstance(self.backbone, InContext):  # a run that begins with another CPC's weights has its context
            self.backbone = InContext(self.backbone, context)

    @property
    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The encoder of tiles or steps, and the context network."""
        if "context" in self._modules:
            return self.backbone, self.context
        assert isinstance(self.backbone, InContext)
        return self.backbone.encoder, self.backbone.context

    def embed(self, x: Tensor) -> Tensor:
        """Items -> features (B, D) of the backbone. With `readout` "context", sequences -> (B, C): the mean over time
        of the context, so of all that was heard up to each step."""
        return super().embed(x)

    def accept(self, sizes: Sequence[int], roles: Sequence[str] = ()) -> None:
        super().accept(sizes, roles)
        if not sizes and self.tile_size is not None:
            raise UserError("these data are no images to cut tiles of; set method.tile_size=null")
        if sizes and self.tile_size is None:
            raise UserError("method.tile_size=null is for sequences; give the side of a tile in pixels")

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        if self.tile_size is None:
            return
        rows = (sizes[0] - self.tile_size) // self.stride + 1
        if rows <= self.offsets[-1]:
            raise UserError(
                f"views of {sizes[0]} px have {max(rows, 0)} rows of tiles, too few to predict {self.offsets[-1]} rows "
                "down; lower method.tile_size, method.stride or method.offsets"
            )
        check_tiles(self.backbone, self.tile_size)

    def tiles(self, batch: Batch) -> Tensor:
        """The first view (B, 3, H, W) -> overlapping tiles (B, T, W, 3, tile_size, tile_size)."""
        assert self.tile_size is not None
        found = batch.views[0].unfold(2, self.tile_size, self.stride).unfold(3, self.tile_size, self.stride)
        tiles = found.permute(0, 2, 3, 1, 4, 5)
        if not self.drop_colors:
            return tiles
        rows, columns = tiles.shape[1:3]
        return drop_colors(tiles, self.draw(batch, rows * columns).view(-1, rows, columns))

    def encoded(self, batch: Batch) -> Tensor:
        """The first view -> z (B, T, W, D); W = 1 for sequences."""
        encoder, _ = self.networks
        if self.tile_size is not None:
            tiles = self.tiles(batch)
            return encoder(tiles.flatten(0, 2)).unflatten(0, tiles.shape[:3])  # type: ignore[no-any-return]
        steps = map_encoder(encoder).feature_map(batch.views[0])  # (B, D, T)
        if steps.shape[2] <= self.offsets[-1]:
            raise UserError(
                f"views have {steps.shape[2]} steps of this network, too few to predict {self.offsets[-1]} ahead; "
                "lower method.offsets, or give longer views (data.length)"
            )
        return steps.transpose(1, 2).unsqueeze(2)  # (B, T, 1, D)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        z = self.encoded(batch)  # (B, T, W, D)
        seen = self.networks[1](z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, T, W, C)
        rows = 1 if getattr(self.loss, "by_item", False) else 0  # the first axis that is put into one
        losses = []
        for k, predictor in zip(self.offsets, self.predictors, strict=True):
            predictions, targets = predictor(seen[:, :-k]), z[:, k:]  # (B, T - k, W, D) each
            losses.append(self.loss(predictions.flatten(rows, 2), targets.flatten(rows, 2)))
        features = (z if "context" in self._modules else seen).mean((1, 2))  # (B, D), or (B, C)
        return self.output(torch.stack(losses).mean(), features, features)
