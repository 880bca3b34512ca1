"""Vision transformers with what masked images and multi-crop need; timm's own weights fit, and timm takes theirs.

Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929; registers: Darcet et al. 2024, https://arxiv.org/abs/2309.16588
"""

from typing import Literal

import torch
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import per_axis, shown
from ssl_lightning.models.patch_tokens import PatchTokens, read_tokens
from ssl_lightning.models.sincos import sincos_positions
from ssl_lightning.models.token_pictures import attention_pictures, patch_pictures
from ssl_lightning.parts.masking import take

__all__ = ["ViT", "attention_pictures", "patch_pictures", "sincos_positions", "take"]


class ViT(PatchTokens, VisionTransformer):
    """timm's VisionTransformer without classifier: images (B, in_channels, H, W) -> features (B, out_dim).

    Images of another size than `image_size` are taken, too, if the patches divide them: positions are interpolated.
    Parameters bear timm's names, so `timm.create_model(..., num_classes=0)` of the same sizes loads them.

    Args:
        image_size, patch_size: pixels, one number or height and width; the patches must divide the image.
        dim, depth, heads: width D of the tokens, number of blocks, attention heads.
        readout: what the features are: the class token, the mean of the patch tokens, or both side by side (2 D wide).
        positions: position embeddings that learn, or fixed sines and cosines (MAE).
        registers: further tokens that belong to no patch.
        drop_path: stochastic depth, rising to this rate at the last block.
        layer_scale: start value of each block's learned scale; None for none.
        uniform_drop_path: the same rate in every block, as in DINOv2.
        class_token: false for a network of patches alone (I-JEPA), with readout "mean".

    Raises:
        UserError: patches that do not divide the image, heads that do not divide the width, a readout of no token.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        readout: Literal["cls", "mean", "both"] = "cls",
        positions: Literal["learned", "sincos"] = "learned",
        registers: int = 0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        uniform_drop_path: bool = False,
        in_channels: int = 3,
        class_token: bool = True,
    ) -> None:
        if not class_token and readout != "mean":
            raise UserError("a ViT without class token is read by its patches; set backbone.readout=mean")
        if any(length % side for length, side in zip(per_axis(image_size, 2), per_axis(patch_size, 2), strict=True)):
            raise UserError(
                f"patches of {shown(patch_size)} px do not divide images of {shown(image_size)} px; change one "
                "of the two"
            )
        if dim % heads:
            raise UserError(f"{heads} heads do not divide tokens {dim} wide; change backbone.heads or backbone.dim")
        super().__init__(
            img_size=image_size,
            patch_size=patch_size,
            in_chans=in_channels,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            global_pool="",
            reg_tokens=registers,
            dynamic_img_size=True,
            drop_path_rate=drop_path,
            init_values=layer_scale,
            class_token=class_token,
        )
        if uniform_drop_path and drop_path > 0:
            for block in self.blocks:
                block.drop_path1, block.drop_path2 = DropPath(drop_path), DropPath(drop_path)
        self.patch_size = patch_size
        self.readout = readout
        self.out_dim = 2 * dim if readout == "both" else dim
        if positions == "sincos":
            assert self.pos_embed is not None
            with torch.no_grad():
                self.pos_embed.zero_()[:, self.num_prefix_tokens :] = sincos_positions(self.grid, dim)
            self.pos_embed.requires_grad_(False)
            if self.cls_token is not None:
                nn.init.normal_(self.cls_token, std=0.02)

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, R + N, D) -> features (B, out_dim)."""
        return read_tokens(tokens, self.num_prefix_tokens, self.readout)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.read(self.tokens(x))
