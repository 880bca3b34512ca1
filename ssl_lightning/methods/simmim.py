"""SimMIM: replace large patches of an image by one learned token, and regress their pixels with a single layer.

Xie et al. 2022, "SimMIM: A Simple Framework for Masked Image Modeling", https://arxiv.org/abs/2111.09886. For
other networks the hidden pixels become the mean colour, as in Li et al. 2023 (A2MIM), https://arxiv.org/abs/2205.13943;
the paper's Swin has a learned token behind its patch embedding instead.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import has_tokens, map_encoder, out_dim, per_axis, shown, token_encoder
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.channels import in_channels
from ssl_lightning.models.maps import check_map, feature_map
from ssl_lightning.parts.masking import enlarged, hidden_count, patchify, random_places, unpatchify


class SimMIM(SSLMethod):
    """Section 3 of the paper. An image's mask is a function of seed, epoch and its index.

    Args:
        backbone: a `TokenEncoder`, e.g. `ViT`, or a `MapEncoder`: a network with a map (B, D, H / stride, W / stride),
            from `forward_features` or `feature_map`.
        loss: scores predicted against true patches where the mask is True, e.g. `MaskedPixelLoss`.
        image_size: of the views, pixels; a token encoder's own size counts.
        mask_size: side of the squares that are hidden, pixels; 32 in the paper. A multiple of what is predicted at once
            (a ViT's patch, another network's stride).
        mask_ratio: share that is hidden, above 0 and below 1; 0.6 in the paper.
        stride: of the map of a network without tokens.
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
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        image_size: int | tuple[int, ...] = 224,
        mask_size: int = 32,
        mask_ratio: float = 0.6,
        stride: int = 32,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        if has_tokens(backbone):
            encoder = token_encoder(backbone)
            self.sides, width = encoder.strides, encoder.token_dim
            lengths = tuple(places * side for places, side in zip(encoder.grid, encoder.strides, strict=True))
        else:
            axes = len(map_encoder(backbone, "SimMIM").strides)
            self.sides, width, lengths = (stride,) * axes, out_dim(backbone), per_axis(image_size, axes)
        self.grid = tuple(length // side for length, side in zip(lengths, self.sides, strict=True))
        if (
            any(mask_size % side for side in self.sides)
            or any(length % mask_size for length in lengths)
            or not 0 < mask_ratio < 1
        ):
            raise UserError(
                f"SimMIM got mask_size={mask_size}, mask_ratio={mask_ratio} for images of {shown(lengths)} px "
                f"predicted by {shown(self.sides)} px (a ViT's patch, or method.stride): images must divide by the "
                "first, the first by the last, and the ratio lie between 0 and 1"
            )
        self.head = nn.Linear(width, prod(self.sides) * in_channels(backbone))
        if has_tokens(backbone):
            self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.loss = self.scoring(loss, "prediction", "patches", "mask")
        self.squares = tuple(length // mask_size for length in lengths)
        if prod(self.squares) < 2:
            raise UserError(
                f"squares of {mask_size} px hide the whole image of {shown(lengths)} px; lower method.mask_size"
            )
        self.units = [mask_size // side for side in self.sides]  # patches in a square, along each axis
        self.hidden = hidden_count(prod(self.squares), mask_ratio)

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        if has_tokens(self.backbone):
            token_encoder(self.backbone).check_size(sizes[0], own=True)
            return
        with evaluating(self.backbone):
            check_map(self.backbone, sizes[0], self.head.in_features, self.sides[0])

    def mask(self, batch: Batch, epoch: int | None = None) -> Tensor:
        """(B, N) bool over patches, True = hidden, in whole squares."""
        draw = self.draw(batch, prod(self.squares), epoch=epoch)
        return enlarged(random_places(draw, self.hidden)[1], self.squares, self.units)

    def predict(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) of the masked images, and the pixels of all patches (B, N, C)."""
        if has_tokens(self.backbone):
            encoder = token_encoder(self.backbone)
            tokens = encoder.tokens(x, hidden=mask, mask_token=self.mask_token)
            return encoder.read(tokens), self.head(encoder.split(tokens)[1])
        masked = self.whole(self.patches(x).masked_fill(mask[:, :, None], 0.0))
        features, places = feature_map(self.backbone, masked)  # (B, D, h, w)
        return features, self.head(places.flatten(2).transpose(1, 2))

    def patches(self, x: Tensor) -> Tensor:
        """Items -> what is predicted at once (B, N, C)."""
        return patchify(x, self.sides)

    def whole(self, patches: Tensor) -> Tensor:
        """The inverse of `patches`."""
        return unpatchify(patches, self.sides, self.grid)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x = batch.views[0]
        mask = self.mask(batch)
        features, prediction = self.predict(x, mask)
        loss = self.loss(prediction, self.patches(x), mask)
        return self.output(loss, features, features)

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """The image, what the network sees of it, and that with the hidden squares as predicted: (B, 3, H, W) each."""
        x, mask = batch.views[0], self.mask(batch, epoch=0)[:, :, None]
        patches, prediction = self.patches(x), self.predict(x, mask[:, :, 0])[1]
        seen, filled = patches.masked_fill(mask, 0.0), torch.where(mask, prediction.to(patches.dtype), patches)
        return {"reconstruction": [x, self.whole(seen), self.whole(filled)]}
