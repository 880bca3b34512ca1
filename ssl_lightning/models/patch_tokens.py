"""What transformers on patches have in common, whatever the axes: tokens with patches left out or hidden, and more."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor

from ssl_lightning.core.as_map import places_of
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import Size, check_divides, check_strict, per_axis, shown
from ssl_lightning.models.channels import in_channels
from ssl_lightning.parts.masking import patchify, take, unpatchify


class PatchTokens:
    """Makes a `TokenEncoder` (core/protocols.py) of a network built like timm's VisionTransformer.

    It has `patch_embed` (items -> (B, N, D) or (B, *grid, D), with `grid_size` and `patch_size`), `_pos_embed` (adds
    positions and puts the prefix tokens in front), `norm_pre`, `blocks` and `norm`. Its own `forward` is left alone,
    and `read` has to agree with it.
    """

    unit = "px"  # of what a size counts
    patch_embed: Any
    blocks: Any
    norm: Any
    norm_pre: Any
    cls_token: Any
    num_prefix_tokens: int
    has_class_token: bool
    _pos_embed: Callable[..., Any]

    @property
    def token_dim(self) -> int:
        return int(self.patch_embed.proj.out_channels)

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(self.patch_embed.grid_size)

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(self.patch_embed.patch_size)

    @property
    def patch_dim(self) -> int:
        return math.prod(self.strides) * in_channels(self.patch_embed)

    @property
    def has_attention(self) -> bool:
        """Whether `attention` can tell where the class token looks: of timm's plain attention it can."""
        return self.has_class_token and type(self.blocks[-1].attn) is Attention

    def patchify(self, x: Tensor) -> Tensor:
        """Items -> the values of their patches (B, N, C)."""
        return patchify(x, self.strides)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Patches (B, N, C) of items of the network's own size -> the items."""
        return unpatchify(patches, self.strides, self.grid)

    def tokens(
        self,
        x: Tensor,
        visible: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Items -> tokens (B, R + N, D) after the last norm: R of `num_prefix_tokens`, then the patches.

        Args:
            visible: (B, K) places of the patches that enter; the others are dropped before the first block, and cost
                nothing. The patch tokens come back in this order.
            hidden, mask_token: (B, N) bool and (D,): the embeddings of hidden patches are replaced by the mask token.
        """
        x = self._pos_embed(self._embedded(x, hidden, mask_token))  # (B, R + N, D)
        if visible is not None:
            x = self._left(x, visible)
        return self.norm(self.blocks(self.norm_pre(x)))

    def _embedded(self, x: Tensor, hidden: Tensor | None, mask_token: Tensor | None) -> Tensor:
        """Items -> embeddings of their patches, (B, N, D) or (B, *grid, D), hidden ones replaced."""
        x = self.patch_embed(x)
        if hidden is not None and mask_token is not None:
            x = torch.where(hidden.view(*x.shape[:-1], 1), mask_token.to(x.dtype), x)
        return x

    def _left(self, x: Tensor, visible: Tensor) -> Tensor:
        """Of tokens (B, R + N, D) those of the prefix and of the visible places (B, K): (B, R + K, D)."""
        prefix, patches = self.split(x)
        return torch.cat([prefix, take(patches, visible)], 1)

    def block_states(self, x: Tensor) -> list[Tensor]:
        """Items -> for each block what its MLP adds (B, R + N, D), before scale and stochastic depth."""
        found: list[Tensor] = []
        hooks = [block.mlp.register_forward_hook(lambda module, args, out: found.append(out)) for block in self.blocks]
        try:
            self._through_blocks(x)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _through_blocks(self, x: Tensor) -> None:
        x = self.norm_pre(self._pos_embed(self.patch_embed(x)))
        for block in self.blocks:
            x = block(x)

    def attention(self, x: Tensor) -> Tensor:
        """Items -> where the class token looks in the last block: (B, heads, *grid), sums at most 1 a head."""
        size = places_of(x, self.strides)
        x = self.norm_pre(self._pos_embed(self.patch_embed(x)))
        for block in self.blocks[:-1]:
            x = block(x)
        last = self.blocks[-1]
        attn, x = last.attn, last.norm1(x)
        q, k, _ = attn.qkv(x).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, R + N, d)
        q, k = attn.q_norm(q[:, :, :1]), attn.k_norm(k)
        weights = (attn.scale * q @ k.transpose(-2, -1)).softmax(-1)[:, :, 0]  # (B, heads, R + N)
        return weights[:, :, self.num_prefix_tokens :].unflatten(2, size)

    def feature_map(self, x: Tensor) -> Tensor:
        """Items -> the tokens of their patches as a map (B, D, *grid)."""
        return self.split(self.tokens(x))[1].transpose(1, 2).unflatten(2, places_of(x, self.strides))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens -> those of class and registers (B, R, D), those of the patches (B, N, D)."""
        return tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, R + any, D) -> features (B, out_dim)."""
        raise NotImplementedError

    def check_size(self, size: Size, own: bool = False) -> None:
        """Refuses views that the patches do not divide; with `own`, of another size than the network's own, for methods
        whose places count its grid."""
        native = [places * side for places, side in zip(self.grid, self.strides, strict=True)]
        if own and per_axis(size, len(native)) != tuple(native):
            self.refuse_size(size, native)
        if not getattr(self.patch_embed, "dynamic_img_pad", False):
            check_divides(self.strides, size, self.unit)
        check_strict(self, size)

    def refuse_size(self, size: Size, native: Sequence[int]) -> None:
        """Raises UserError for views of this size, where `native` is wanted."""
        raise UserError(
            f"views of {shown(size)} px for a ViT of {shown(native)} px; set data.image_size, and leave views.*.size "
            "at it"
        )


def read_tokens(tokens: Tensor, prefix: int, readout: str) -> Tensor:
    """Tokens (B, R + N, D) -> features: the class token, the mean of the patches, or both side by side (B, 2 D)."""
    parts = [tokens[:, 0]] if readout != "mean" else []
    return torch.cat([*parts, *([tokens[:, prefix:].mean(1)] if readout != "cls" else [])], 1)
