"""Vision transformers with what masked images and multi-crop need; timm's own weights fit, and timm takes theirs.

Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929; registers: Darcet et al. 2024, https://arxiv.org/abs/2309.16588
"""

import math
from typing import Any, Literal

import torch
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_lightning.errors import UserError


class ViT(VisionTransformer):
    """timm's VisionTransformer without classifier: images (B, in_channels, H, W) -> features (B, out_dim).

    Images of another size than `image_size` are taken, too, if the patches divide them: positions are interpolated.
    Parameters bear timm's names, so `timm.create_model(..., num_classes=0)` of the same sizes loads them.

    Args:
        image_size, patch_size: pixels; the patches must divide the image.
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
        image_size: int = 224,
        patch_size: int = 16,
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
        if image_size % patch_size:
            raise UserError(
                f"patches of {patch_size} px do not divide images of {image_size} px; change one of the two"
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
        self.patch_size, self.grid = patch_size, image_size // patch_size
        self.readout = readout
        self.out_dim = 2 * dim if readout == "both" else dim
        if positions == "sincos":
            assert self.pos_embed is not None
            with torch.no_grad():
                self.pos_embed.zero_()[:, self.num_prefix_tokens :] = sincos_positions(self.grid, dim)
            self.pos_embed.requires_grad_(False)
            if self.cls_token is not None:
                nn.init.normal_(self.cls_token, std=0.02)

    def tokens(
        self,
        x: Tensor,
        visible: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Images (B, 3, H, W) -> tokens (B, R + N, D) after the last norm: R of `num_prefix_tokens`, then the patches.

        Args:
            visible: (B, K) places of the patches that enter; the others are dropped before the first block, and cost
                nothing. The patch tokens come back in this order.
            hidden, mask_token: (B, N) bool and (D,): the embeddings of hidden patches are replaced by the mask token.
        """
        x = self.patch_embed(x)  # (B, h, w, D)
        if hidden is not None and mask_token is not None:
            x = torch.where(hidden.view(*x.shape[:3], 1), mask_token.to(x.dtype), x)
        x = self._pos_embed(x)  # (B, R + N, D)
        if visible is not None:
            prefix, patches = self.split(x)
            x = torch.cat([prefix, take(patches, visible)], 1)  # (B, R + K, D)
        return self.norm(self.blocks(self.norm_pre(x)))

    def block_states(self, x: Tensor) -> list[Tensor]:
        """Images -> for each block what its MLP adds (B, R + N, D), before scale and stochastic depth."""
        x = self.norm_pre(self._pos_embed(self.patch_embed(x)))
        found: list[Tensor] = []
        blocks: Any = self.blocks
        for block in blocks:
            x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
            found.append(block.mlp(block.norm2(x)))
            x = x + block.drop_path2(block.ls2(found[-1]))
        return found

    def attention(self, x: Tensor) -> Tensor:
        """Images -> where the class token looks in the last block: (B, heads, h, w), sums at most 1 a head."""
        size = x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size
        x = self.norm_pre(self._pos_embed(self.patch_embed(x)))
        last: Any = self.blocks[-1]
        x = last.norm1(self.blocks[:-1](x))
        attn = last.attn
        q, k, _ = attn.qkv(x).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, R + N, d)
        q, k = attn.q_norm(q[:, :, :1]), attn.k_norm(k)
        weights = (attn.scale * q @ k.transpose(-2, -1)).softmax(-1)[:, :, 0]  # (B, heads, R + N)
        return weights[:, :, self.num_prefix_tokens :].unflatten(2, size)

    def check_size(self, size: int) -> None:
        """Refuses views of another size than the network's own, for methods whose places count its grid."""
        if size != self.grid * self.patch_size:
            own = self.grid * self.patch_size
            raise UserError(
                f"views of {size} px for a ViT of {own} px; set data.image_size, and leave views.*.size at it"
            )

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens -> those of class and registers (B, R, D), those of the patches (B, N, D)."""
        return tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, R + N, D) -> features (B, out_dim)."""
        prefix, patches = self.split(tokens)
        parts = [prefix[:, 0]] if self.readout != "mean" else []
        return torch.cat([*parts, *([patches.mean(1)] if self.readout != "cls" else [])], 1)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.read(self.tokens(x))


def take(patches: Tensor, places: Tensor) -> Tensor:
    """The patches (B, N, D) at the places (B, K): (B, K, D)."""
    return patches.gather(1, places[:, :, None].expand(-1, -1, patches.shape[2]))


def sincos_positions(grid: int, dim: int) -> Tensor:
    """Fixed position embeddings (grid * grid, dim) of a square grid, row by row (MAE's, after Vaswani et al. 2017).

    A quarter of the width each: sines, then cosines, of the column; sines, then cosines, of the row.

    Raises:
        UserError: a width that is no multiple of 4.
    """
    if dim % 4:
        raise UserError(f"sines and cosines of two axes need a width that is a multiple of 4, not {dim}")
    rates = torch.exp(-math.log(10000.0) * torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * rates  # (grid, dim / 4)
    axis = torch.cat([angles.sin(), angles.cos()], 1)  # (grid, dim / 2)
    columns, rows = axis.repeat(grid, 1), axis.repeat_interleave(grid, 0)
    return torch.cat([columns, rows], 1).float()


def attention_pictures(backbone: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    """For images (B, 3, H, W) the maps of the class token, a column per head, and the patch tokens as colours.

    Each map is scaled to its own maximum. Other networks than a `ViT` have neither.
    """
    if not isinstance(backbone, ViT):
        return {}
    if backbone.cls_token is None:
        return {"patch_pca": patch_pictures(backbone, x)}
    maps = backbone.attention(x).float()
    maps = maps / maps.amax((2, 3), keepdim=True)
    columns = [_pixels(one[:, None].expand(-1, 3, -1, -1), x) for one in maps.unbind(1)]
    return {"attention": [x, *columns], "patch_pca": patch_pictures(backbone, x)}


def patch_pictures(backbone: Any, x: Tensor) -> list[Tensor]:
    """Images (B, 3, H, W), and a `ViT`'s patch tokens of them as colours (B, 3, H, W).

    The colours are the three principal components of the tokens of all images together, each scaled to its range (as
    in Oquab et al. 2023, figure 1).
    """
    tokens = backbone.split(backbone.tokens(x))[1].float()  # (B, N, D)
    flat = tokens.flatten(0, 1) - tokens.mean((0, 1))
    axes = torch.linalg.svd(flat, full_matrices=False)[2][:3]  # (3, D)
    axes = axes * axes.sum(1, keepdim=True).sign()  # a component's sign is arbitrary
    colours = flat @ axes.T  # (B N, 3)
    low, high = colours.amin(0), colours.amax(0)
    size = x.shape[-2] // backbone.patch_size, x.shape[-1] // backbone.patch_size
    colours = ((colours - low) / (high - low).clamp_min(1e-12)).view(len(x), *size, 3)
    return [x, _pixels(colours.permute(0, 3, 1, 2), x)]


def _pixels(values: Tensor, like: Tensor) -> Tensor:
    """Values in [0, 1] (B, 3, h, w) as uint8 pictures as large as the images (B, 3, H, W)."""
    return (255 * interpolate(values, size=like.shape[-2:], mode="nearest")).round().to(torch.uint8)
