"""timm's plain vision transformers as `TokenEncoder`s: by its name any of them goes into a masked method.

The network stays timm's: its layers, the names of its weights and its `forward` are untouched. It only gets methods,
by a class below its own.
"""

from typing import Any

from timm.layers import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_lightning.models.patch_tokens import PatchTokens


class TimmTokens(PatchTokens):
    """What timm's networks have beyond `PatchTokens`: they are read by their own head."""

    forward_head: Any

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, R + any, D) -> features (B, out_dim), as timm pools them."""
        return self.forward_head(tokens)


class TimmViT(TimmTokens, VisionTransformer):
    """ViT, DeiT 3, CLIP's, SigLIP's and DINOv2's, with or without registers."""


class TimmDistilled(TimmTokens, VisionTransformerDistilled):
    """DeiT with a distillation token, which is a prefix token as a register is."""


class TimmEva(TimmTokens, Eva):
    """EVA, EVA-02, DINOv3 and others with rotary positions: each patch keeps those of its place."""

    @property
    def has_class_token(self) -> bool:  # type: ignore[override]
        return self.cls_token is not None

    def tokens(
        self,
        x: Tensor,
        visible: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        x, turns = self._pos_embed(self._embedded(x, hidden, mask_token))
        if visible is not None:
            x, turns = self._left(x, visible), self._turns_of(turns, visible)
        return self.norm(self._turned(x, turns))

    def _turns_of(self, turns: Tensor | None, visible: Tensor) -> Tensor | None:
        """Rotations of all places -> those of the visible places (B, K): (B, 1, K, d), or (blocks, B, heads, K, d)."""
        if turns is None:
            return None
        if getattr(self, "rope_mixed", False):  # each block and head has its own: (blocks, heads, N, d)
            return turns[:, :, visible].transpose(1, 2)
        return turns[visible][:, None]

    def _turned(self, x: Tensor, turns: Tensor | None) -> Tensor:
        x, mixed = self.norm_pre(x), getattr(self, "rope_mixed", False)
        for number, block in enumerate(self.blocks):
            x = block(x, rope=turns[number] if mixed and turns is not None else turns)
        return x

    def _through_blocks(self, x: Tensor) -> None:
        self._turned(*self._pos_embed(self.patch_embed(x)))


WITH_TOKENS: dict[type[nn.Module], type[nn.Module]] = {
    VisionTransformer: TimmViT,
    VisionTransformerDistilled: TimmDistilled,
    Eva: TimmEva,
}


def with_tokens(network: nn.Module) -> nn.Module:
    """The same network; one of timm's transformers on whole patches can from now on be asked for its tokens.

    Others are left as they are: those whose patches overlap (a hidden patch would be seen by its neighbours), those
    that drop patches of their own choice, and those whose blocks are no attention and MLP one after another.
    """
    kind = WITH_TOKENS.get(type(network))
    if kind is not None and _on_whole_patches(network):
        network.__class__ = kind
    return network


def _on_whole_patches(network: Any) -> bool:
    drop = getattr(network, "patch_drop", None)
    whole = type(network.patch_embed) is PatchEmbed and isinstance(drop, nn.Identity | None)
    return whole and all(hasattr(block, "mlp") and hasattr(block, "attn") for block in network.blocks)
