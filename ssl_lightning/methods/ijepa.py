"""I-JEPA: from a context block of an image, predict what a slow teacher says of other blocks, in feature space.

Assran et al. 2023, "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture",
https://arxiv.org/abs/2301.08243
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.distributed import reduce
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import widen
from ssl_lightning.core.protocols import TokenEncoder, token_encoder
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.token_pictures import patch_pictures
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.masking import block_places, block_size, context_places, take
from ssl_lightning.parts.teacher import Teacher


class IJEPA(SSLMethod):
    """Section 3 of the paper. Judged and exported is the teacher (the target encoder), as in the paper.

    The size of the blocks is drawn for each step, their places for each image, both as functions of the seed, so that
    every rank and a resumed run draw the same. No target is ever part of the context; where that leaves the context of
    one image fewer patches than that of another, the others lose some at random, to be equally many. Targets that could
    hide the whole image are made narrower. The class token of timm's ViT takes part in attention and is not read; the
    authors' network has none.

    Args:
        backbone: a `TokenEncoder`, e.g. `ViT`; the context encoder.
        predictor: called with the backbone, gives the module from context tokens to tokens of the targets.
        loss: predictions and targets, both (B, M, T, D), to a scalar, e.g. `torch.nn.SmoothL1Loss`, the authors'.
        teacher: how the target encoder follows; momentum rises from 0.996 to 1 in the paper.
        targets: M, how many blocks are predicted.
        target_scale, target_aspect: shares of the image that they cover, and height over width.
        context_scale: share of the square context block, before the targets are taken out.
        seed: of the blocks.
        **optim: `optimizer`, an OptimizerRecipe.

    Raises:
        UserError: a backbone without tokens, or more targets than its grid has places.
    """

    features_are_readout = False
    global_views = 1
    judged_by = "teacher.networks.0"
    decayed = ("predictor.mask_token",)

    def __init__(
        self,
        backbone: nn.Module,
        predictor: Callable[[TokenEncoder], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        teacher: EMATeacher,
        targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        encoder = token_encoder(backbone, "I-JEPA")
        self.grid, self.targets = encoder.grid, targets
        if not 1 <= targets < prod(self.grid):
            raise UserError(
                f"{targets} targets on a grid of {' x '.join(map(str, self.grid))} leave nothing to see; lower "
                "method.targets or take smaller patches"
            )
        self.predictor = predictor(encoder)
        self.teacher = Teacher(teacher, backbone)
        self.loss = self.scoring(loss, "predictions", "targets")
        self.target_scale, self.target_aspect, self.context_scale = target_scale, target_aspect, context_scale

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        token_encoder(self.backbone).check_size(sizes[0], own=True)

    def blocks(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Places of the context (B, K) and of the targets (B, M, T)."""
        patches = prod(self.grid)
        a, b, c = self.draw_for(torch.tensor([step]), 3, stream=1)[0].tolist()  # on the CPU
        size = block_size(self.grid, self.target_scale, self.target_aspect, (a, b))
        while self.targets * prod(size) >= patches:  # on a small grid: something must be left to see
            size = smaller(size)
        around = block_size(self.grid, self.context_scale, (1.0, 1.0), (c, 0.0))
        axes = len(self.grid)
        places = axes * (self.targets + 1)  # a number for each axis of each block
        draw = self.draw(batch, places + patches)
        corners, lots = draw[:, :places].unflatten(1, (-1, axes)), draw[:, places:]
        targets = block_places(self.grid, size, corners[:, 1:])  # (B, M, T)
        order, inside = context_places(targets, block_places(self.grid, around, corners[:, 0]), lots)
        count = -int(reduce(-inside.min(), "max"))  # the fewest of any image on any rank
        return order[:, : max(count, 1)].sort(1).values, targets

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x, encoder = batch.views[0], token_encoder(self.backbone)
        visible, places = self.blocks(batch, self.global_step)
        tokens = encoder.tokens(x, visible)
        predictions = self.predictor(encoder.split(tokens)[1], visible, places)
        loss = self.loss(widen(predictions), self.answers(x, places))
        features = encoder.read(tokens)  # (B, D)
        return self.output(loss, features, features)

    @torch.no_grad()
    def answers(self, x: Tensor, places: Tensor) -> Tensor:
        """What the teacher, which sees the whole image, says of the places (B, M, T): (B, M, T, D), normalised."""
        teacher = token_encoder(self.teacher.networks[0])
        patches = widen(teacher.split(teacher.tokens(x))[1])  # (B, N, D)
        patches = layer_norm(patches, patches.shape[-1:])
        return take(patches, places.flatten(1)).unflatten(1, places.shape[1:])

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """The target encoder's patch tokens as colours; its class token has no loss, and no attention to show."""
        x = batch.views[0]
        return {"patch_pca": patch_pictures(self.judged, x)} if x.ndim == 4 else {}


def smaller(size: tuple[int, ...]) -> tuple[int, ...]:
    """A block one patch shorter, on the last of its axes where it can be."""
    axis = max(number for number, length in enumerate(size) if length > 1)
    return (*size[:axis], size[axis] - 1, *size[axis + 1 :])
