"""The narrow transformer that predicts, from the visible tokens, what a teacher says of other places."""

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_lightning.core.protocols import TokenEncoder
from ssl_lightning.models.sincos import sincos_positions


class TokenPredictor(nn.Module):
    """I-JEPA's predictor (Assran et al. 2023, section 3 and appendix A.1, https://arxiv.org/abs/2301.08243).

    Args:
        backbone: the context encoder, whose grid and width it fits.
        dim, depth, heads: of the predictor; 384, 12 and 12 in the paper for ViT-H.
        eps: of its LayerNorms; 1e-6 in the authors' code.
    """

    def __init__(
        self, backbone: TokenEncoder, dim: int = 384, depth: int = 6, heads: int = 12, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.narrow = nn.Linear(backbone.token_dim, dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(dim))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(backbone.grid, dim), persistent=False)  # (N, dim)
        norm: Any = partial(nn.LayerNorm, eps=eps)
        self.blocks = nn.Sequential(*[Block(dim, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)])
        self.norm = norm(dim)
        self.widen = nn.Linear(dim, backbone.token_dim)

    def forward(self, context: Tensor, visible: Tensor, targets: Tensor) -> Tensor:
        """Tokens (B, K, D) of the places `visible` (B, K), M blocks of places (B, M, T) -> predictions (B, M, T, D).

        Each block is predicted by itself: the blocks do not see each other.
        """
        positions = self.positions.to(context.dtype)
        known = self.narrow(context) + positions[visible]  # (B, K, dim)
        asked = self.mask_token.to(known.dtype) + positions[targets]  # (B, M, T, dim)
        known = known[:, None].expand(-1, targets.shape[1], -1, -1)  # (B, M, K, dim)
        x = torch.cat([known, asked], 2).flatten(0, 1)  # (B M, K + T, dim)
        x = self.norm(self.blocks(x))[:, -targets.shape[2] :]
        return self.widen(x).unflatten(0, targets.shape[:2])
