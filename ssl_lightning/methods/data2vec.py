"""data2vec: from an image with hidden patches, predict what a slow teacher's upper blocks say of them, who sees all.

Baevski et al. 2022, "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language",
https://arxiv.org/abs/2202.03555
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import widen
from ssl_lightning.core.protocols import token_encoder
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.token_pictures import attention_pictures
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.masking import BLOCK_DRAWS, block_mask, hidden_count
from ssl_lightning.parts.teacher import Teacher


class Data2Vec(SSLMethod):
    """Section 3 of the paper, for images: blocks of patches are hidden as in BEiT, one linear layer predicts.

    An image's mask is a function of seed, epoch and its index. The target is what the MLPs add, as in the paper; the
    authors' runs on images took the blocks' outputs, relative positions and a last normalisation of the mean.

    Args:
        backbone: a `TokenEncoder`, e.g. `ViT`.
        loss: predictions and targets of the R hidden patches, both (R, D), to a scalar, e.g. `torch.nn.SmoothL1Loss`.
        teacher: how the teacher follows.
        target_blocks: of how many of the last blocks the target is the mean: 6 in the paper. All, if there are fewer.
        mask_ratio: share of hidden patches, above 0 and below 1; 0.6 in the paper.
        seed: of the masks.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    global_views = 1
    decayed = ("mask_token",)
    not_decayed = ("backbone.pos_embed", "backbone.cls_token")  # as in the authors' code

    def __init__(
        self,
        backbone: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        teacher: EMATeacher,
        target_blocks: int = 6,
        mask_ratio: float = 0.6,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        encoder = token_encoder(backbone, "data2vec")
        self.grid = encoder.grid
        if prod(self.grid) < 2 or not 0 < mask_ratio < 1:
            raise UserError(
                f"mask_ratio is {mask_ratio} on a grid of {' x '.join(map(str, self.grid))} patches; the ratio must "
                "lie between 0 and 1 (0.6 is usual), and the patches be smaller than the image"
            )
        if target_blocks < 1:
            raise UserError(f"target_blocks is {target_blocks}; the target is made of 1 block or more")
        self.teacher = Teacher(teacher, backbone)
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.token_dim))
        self.head = nn.Linear(encoder.token_dim, encoder.token_dim)
        self.loss = self.scoring(loss, "predictions", "targets")
        self.target_blocks = target_blocks
        self.hidden = hidden_count(prod(self.grid), mask_ratio)

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        token_encoder(self.backbone).check_size(sizes[0], own=True)

    def mask(self, batch: Batch) -> Tensor:
        """(B, N) bool, True = hidden, equally many in each image."""
        draw = self.draw(batch, BLOCK_DRAWS + prod(self.grid))
        return block_mask(self.grid, torch.full_like(batch.indices, self.hidden), draw)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        encoder = token_encoder(self.backbone)
        x, mask = batch.views[0], self.mask(batch)
        tokens = encoder.tokens(x, hidden=mask, mask_token=self.mask_token)
        predictions = self.head(encoder.split(tokens)[1][mask])  # (R, D)
        targets = self.targets(x)[mask]
        loss = self.loss(widen(predictions), targets)
        features = encoder.read(tokens)  # (B, D)
        return self.output(loss, features, features, target_std=targets.std(0).mean())

    @torch.no_grad()
    def targets(self, x: Tensor) -> Tensor:
        """The mean over the teacher's last blocks of what their MLPs say, each token normalised: (B, N, D)."""
        teacher = token_encoder(self.teacher.networks[0])
        said = [widen(teacher.split(state)[1]) for state in teacher.block_states(x)[-self.target_blocks :]]
        return torch.stack([layer_norm(state, state.shape[-1:]) for state in said]).mean(0)

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Where the class token looks, and the patch tokens as colours."""
        return attention_pictures(self.judged, batch.views[0])
