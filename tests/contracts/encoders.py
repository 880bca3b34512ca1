"""Small encoders of every kind for the contract: ours, timm's, and strangers that have what a Protocol lists."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn

from ssl_lightning.core.protocols import TokenEncoder
from ssl_lightning.models.patch_tokens import PatchTokens, read_tokens
from ssl_lightning.models.timm import timm_backbone
from ssl_lightning.models.transformer1d import Transformer1d
from ssl_lightning.models.vit import ViT
from ssl_lightning.parts.masking import patchify, take, unpatchify

TINY = {"image_size": 8, "patch_size": 2, "embed_dim": 24, "depth": 2, "num_heads": 3}


class Tubelets(nn.Module):
    """Tubes of a small film (B, C, T, H, W) -> embeddings (B, N, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.patch_size, self.grid_size = (1, 2, 2), (2, 2, 3)
        self.proj = nn.Conv3d(3, dim, self.patch_size, stride=self.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Film(PatchTokens, nn.Module):
    """A transformer on three axes: what `PatchTokens` asks for, and no more."""

    def __init__(self) -> None:
        super().__init__()
        line = Transformer1d(12, 1, 24, 2, 2, "cls")
        self.patch_embed, self.blocks, self.norm, self.norm_pre = Tubelets(24), line.blocks, line.norm, nn.Identity()
        self.cls_token, self.pos_embed = line.cls_token, line.pos_embed
        self.num_prefix_tokens, self.has_class_token, self.out_dim = 1, True, 24

    def _pos_embed(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed

    def read(self, tokens: Tensor) -> Tensor:
        return read_tokens(tokens, 1, "cls")

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.tokens(x))


TOKEN_ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "square": lambda: ViT(8, 2, 12, 2, 2),
    "wide": lambda: ViT((4, 12), (2, 3), 12, 2, 2, "both", "sincos", registers=2),
    "timm": lambda: timm_backbone("vit_tiny_patch16_224", **TINY),
    "timm_mean": lambda: timm_backbone("vit_tiny_patch16_224", global_pool="avg", **TINY),
    "timm_deit": lambda: timm_backbone("deit_tiny_distilled_patch16_224", **TINY),
    "timm_registers": lambda: timm_backbone("vit_small_patch14_reg4_dinov2", **TINY),
    "timm_eva02": lambda: timm_backbone("eva02_tiny_patch14_224", **TINY),
    "timm_dinov3": lambda: timm_backbone("vit_small_patch16_dinov3", **TINY | {"num_heads": 2}),
    "timm_mixed": lambda: timm_backbone("vit_small_patch16_rope_mixed_224", **TINY),
    "sequence": lambda: Transformer1d(24, 2, 12, 2, 2, "cls", in_channels=3),
    "film": Film,
}


def encoder(name: str) -> nn.Module:
    """In float64, with weights so large that a mistake would show."""
    torch.manual_seed(0)
    net = TOKEN_ENCODERS[name]()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net.double()


def items(net: TokenEncoder, batch: int = 4, seed: int = 0) -> Tensor:
    lengths = [places * side for places, side in zip(net.grid, net.strides, strict=True)]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, net.patch_dim // prod(net.strides), *lengths, generator=generator, dtype=torch.float64)


class Stranger(nn.Module):
    """An encoder with `out_dim` and `forward`, and nothing else; any size of image goes."""

    def __init__(self) -> None:
        super().__init__()
        self.out_dim = 6
        self.layer = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x.flatten(2).transpose(1, 2))).mean(1)


class StrangeMap(Stranger):
    """A `MapEncoder` of images, and no more."""

    strides = (1, 1)

    def feature_map(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x.movedim(1, -1))).movedim(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean((2, 3))


class StrangeTokens(nn.Module):
    """A `TokenEncoder` of images of 4 x 4 px, and no more: one layer in which every token sees every other."""

    out_dim = token_dim = 8
    grid, strides, patch_dim = (4, 4), (1, 1), 3
    num_prefix_tokens, has_class_token = 1, True

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Linear(3, 8), nn.Parameter(torch.randn(16, 8))
        self.first, self.layer = nn.Parameter(torch.randn(8)), nn.Linear(16, 8)

    def patchify(self, x: Tensor) -> Tensor:
        return patchify(x, 1)

    def unpatchify(self, patches: Tensor) -> Tensor:
        return unpatchify(patches, 1)

    def tokens(
        self,
        x: Tensor,
        visible: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        patches = self.embedding(self.patchify(x))
        if hidden is not None and mask_token is not None:
            patches = torch.where(hidden[..., None], mask_token, patches)
        patches = patches + self.positions
        patches = patches if visible is None else take(patches, visible)
        return self._mixed(torch.cat([self.first.expand(len(x), 1, -1), patches], 1))

    def _mixed(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(torch.cat([x, x.mean(1, keepdim=True).expand_as(x)], 2)))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return tokens[:, :1], tokens[:, 1:]

    def read(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]

    def block_states(self, x: Tensor) -> list[Tensor]:
        return [self.tokens(x)]

    def check_size(self, size: object, own: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.tokens(x))
