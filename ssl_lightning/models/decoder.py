"""The light decoder of masked autoencoders: from the visible tokens to the pixels of all patches."""

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_lightning.core.protocols import TokenEncoder
from ssl_lightning.models.sincos import sincos_positions


class MAEDecoder(nn.Module):
    """MAE's decoder (He et al. 2022, section 3, https://arxiv.org/abs/2111.06377).

    The visible tokens are narrowed, one learned token stands in every hidden place, positions are added, some blocks
    follow, and each patch's token is made into its pixels. Linear layers start as in MAE's code (Xavier, uniform).

    Args:
        backbone: the encoder, whose grid, patches and width it fits.
        dim, depth, heads: of the decoder; 512, 8 and 16 in the paper, for any encoder.
        eps: of its LayerNorms; 1e-6 in the authors' code.
    """

    def __init__(
        self, backbone: TokenEncoder, dim: int = 512, depth: int = 8, heads: int = 16, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.prefix = backbone.num_prefix_tokens
        self.narrow = nn.Linear(backbone.token_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(backbone.grid, dim), persistent=False)  # (N, dim)
        norm: Any = partial(nn.LayerNorm, eps=eps)
        self.blocks = nn.Sequential(*[Block(dim, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)])
        self.norm = norm(dim)
        self.pixels = nn.Linear(dim, backbone.patch_dim)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Tokens (B, R + K, D) of the patches at the visible places (B, K) -> pixels of all patches (B, N, C)."""
        tokens = self.narrow(tokens)
        prefix, known = tokens[:, : self.prefix], tokens[:, self.prefix :]  # (B, R, dim), (B, K, dim)
        patches = self.mask_token.to(known.dtype).expand(len(known), len(self.positions), -1)
        patches = patches.scatter(1, visible[:, :, None].expand(-1, -1, known.shape[2]), known)
        x = torch.cat([prefix, patches + self.positions.to(known.dtype)], 1)
        return self.pixels(self.norm(self.blocks(x))[:, self.prefix :])
