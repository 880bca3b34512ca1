"""SimMIM: replace large patches of an image by one learned token, and regress their pixels with a single layer.

Xie et al. 2022, "SimMIM: A Simple Framework for Masked Image Modeling", https://arxiv.org/abs/2111.09886. For
other networks the hidden pixels become the mean colour, as in Li et al. 2023 (A2MIM), https://arxiv.org/abs/2205.13943;
the paper's Swin has a learned token behind its patch embedding instead.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.channels import in_channels
from ssl_lightning.models.maps import check_map, feature_map, has_map
from ssl_lightning.models.masking import hidden_count, patchify, random_places, unpatchify
from ssl_lightning.models.vit import ViT


class SimMIM(SSLMethod):
    """Section 3 of the paper. An image's mask is a function of seed, epoch and its index.

    Args:
        backbone: a `ViT`, or a network with `forward_features` from images to a map (B, D, H / stride, W / stride).
        loss: scores predicted against true patches where the mask is True, e.g. `MaskedPixelLoss`.
        image_size: of the views, pixels.
        mask_size: side of the squares that are hidden, pixels; 32 in the paper. A multiple of what is predicted at once
            (a ViT's patch, another network's stride).
        mask_ratio: share that is hidden, above 0 and below 1; 0.6 in the paper.
        stride: of a network that is no ViT.
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
        image_size: int = 224,
        mask_size: int = 32,
        mask_ratio: float = 0.6,
        stride: int = 32,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        if not has_map(backbone):
            raise UserError("SimMIM needs a ViT or a network with a feature map (forward_features)")
        self.patch_size = backbone.patch_size if isinstance(backbone, ViT) else stride
        if mask_size % self.patch_size or image_size % mask_size or not 0 < mask_ratio < 1:
            raise UserError(
                f"SimMIM got mask_size={mask_size}, mask_ratio={mask_ratio} for images of {image_size} px predicted by "
                f"{self.patch_size} px (a ViT's patch, or method.stride): images must divide by the first, the "
                "first by the last, and the ratio lie between 0 and 1"
            )
        width = backbone.embed_dim if isinstance(backbone, ViT) else int(backbone.out_dim)  # type: ignore[arg-type]
        self.head = nn.Linear(width, self.patch_size**2 * in_channels(backbone))
        if isinstance(backbone, ViT):
            self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.loss = self.scoring(loss, "prediction", "patches", "mask")
        if image_size // mask_size < 2:
            raise UserError(
                f"squares of {mask_size} px hide the whole image of {image_size} px; lower method.mask_size"
            )
        self.squares, self.unit = image_size // mask_size, mask_size // self.patch_size
        self.hidden = hidden_count(self.squares**2, mask_ratio)

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        if isinstance(self.backbone, ViT):
            self.backbone.check_size(sizes[0])
            return
        with evaluating(self.backbone):
            check_map(self.backbone, sizes[0], self.head.in_features, self.patch_size)

    def mask(self, batch: Batch, epoch: int | None = None) -> Tensor:
        """(B, N) bool over patches, True = hidden, in whole squares."""
        mask = random_places(self.draw(batch, self.squares**2, epoch=epoch), self.hidden)[1].unflatten(
            1, (self.squares, self.squares)
        )
        return mask.repeat_interleave(self.unit, 1).repeat_interleave(self.unit, 2).flatten(1)

    def predict(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) of the masked images, and the pixels of all patches (B, N, C)."""
        if isinstance(self.backbone, ViT):
            tokens = self.backbone.tokens(x, hidden=mask, mask_token=self.mask_token)
            return self.backbone.read(tokens), self.head(self.backbone.split(tokens)[1])
        masked = unpatchify(patchify(x, self.patch_size).masked_fill(mask[:, :, None], 0.0), self.patch_size)
        features, places = feature_map(self.backbone, masked)  # (B, D, h, w)
        return features, self.head(places.flatten(2).transpose(1, 2))

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x = batch.views[0]
        mask = self.mask(batch)
        features, prediction = self.predict(x, mask)
        loss = self.loss(prediction, patchify(x, self.patch_size), mask)
        return self.output(loss, features, features)

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """The image, what the network sees of it, and that with the hidden squares as predicted: (B, 3, H, W) each."""
        x, mask = batch.views[0], self.mask(batch, epoch=0)[:, :, None]
        patches, prediction = patchify(x, self.patch_size), self.predict(x, mask[:, :, 0])[1]
        seen, filled = patches.masked_fill(mask, 0.0), torch.where(mask, prediction.to(patches.dtype), patches)
        return {"reconstruction": [x, unpatchify(seen, self.patch_size), unpatchify(filled, self.patch_size)]}
