"""MAE: hide three quarters of an image's patches, encode the others, predict the hidden pixels with a light decoder.

He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import TokenEncoder, token_encoder
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.parts.masking import hidden_count, random_places


class MAE(SSLMethod):
    """Section 3 of the paper. The hidden patches never enter the encoder, so that its cost falls with them.

    An image's mask is a function of seed, epoch and its index alone: the same on any rank, and after a resume.

    Args:
        backbone: a `TokenEncoder`, e.g. `ViT`; features are its readout, in training that of the visible patches.
        decoder: called with the backbone, gives the module from visible tokens to the pixels of all patches.
        loss: scores predicted against true patches where the mask is True, e.g. `MaskedPixelLoss`.
        mask_ratio: share of patches that are hidden, above 0 and below 1; 0.75 in the paper.
        seed: of the masks.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    global_views = 1
    decayed = ("decoder.mask_token",)

    def __init__(
        self,
        backbone: nn.Module,
        decoder: Callable[[TokenEncoder], nn.Module],
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        mask_ratio: float = 0.75,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        encoder = token_encoder(backbone, "MAE")
        patches = prod(encoder.grid)
        if patches < 2:
            raise UserError("MAE hides some patches and shows others; take patches smaller than the image")
        if not 0 < mask_ratio < 1:
            raise UserError(f"mask_ratio is {mask_ratio}; it must be above 0 and below 1 (0.75 is usual)")
        self.decoder = decoder(encoder)
        self.loss = self.scoring(loss, "prediction", "patches", "mask")
        self.hidden = hidden_count(patches, mask_ratio)

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        token_encoder(self.backbone).check_size(sizes[0], own=True)

    def predict(self, x: Tensor, draw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Items and uniform numbers (B, N) -> tokens (B, R + K, D), pixels of all patches (B, N, C), mask (B, N)."""
        visible, mask = random_places(draw, self.hidden)
        tokens = token_encoder(self.backbone).tokens(x, visible)
        return tokens, self.decoder(tokens, visible), mask

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x, encoder = batch.views[0], token_encoder(self.backbone)
        patches = encoder.patchify(x)  # (B, N, C)
        draw = self.draw(batch, patches.shape[1])
        tokens, prediction, mask = self.predict(x, draw)
        loss = self.loss(prediction, patches, mask)
        features = encoder.read(tokens)  # (B, D)
        return self.output(loss, features, features)

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """The image, what the encoder sees of it, and that with the hidden patches as predicted: (B, C, H, W) each."""
        x, encoder = batch.views[0], token_encoder(self.backbone)
        patches = encoder.patchify(x)
        _, prediction, mask = self.predict(x, self.draw(batch, patches.shape[1], epoch=0))
        if getattr(self.loss, "norm_target", False):  # back from each patch's own mean and deviation, known to us alone
            deviation = (patches.var(-1, keepdim=True) + 1e-6).sqrt()
            prediction = prediction * deviation + patches.mean(-1, keepdim=True)
        hidden = mask[:, :, None]
        seen, filled = patches.masked_fill(hidden, 0.0), torch.where(hidden, prediction.to(patches.dtype), patches)
        return {"reconstruction": [x, encoder.unpatchify(seen), encoder.unpatchify(filled)]}
