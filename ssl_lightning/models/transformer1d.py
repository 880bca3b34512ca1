"""A transformer on patches of a sequence, for masked and other methods on waves, spectra and time series.

The blocks and their start are those of the Vision Transformer: Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from timm.models.vision_transformer import Block, init_weights_vit_timm
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import Size, shown
from ssl_lightning.models.patch_tokens import PatchTokens, read_tokens
from ssl_lightning.models.sincos import sincos_positions


class PatchEmbed1d(nn.Module):
    """Sequences (B, C, L) -> embeddings of their patches (B, L / patch_size, D)."""

    def __init__(self, length: int, patch_size: int, in_channels: int, dim: int) -> None:
        super().__init__()
        self.patch_size, self.grid_size = (patch_size,), (length // patch_size,)
        self.proj = nn.Conv1d(in_channels, dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).transpose(1, 2)


class Transformer1d(PatchTokens, nn.Module):
    """Sequences (B, in_channels, L) -> features (B, out_dim); a `TokenEncoder` with one axis, with all abilities.

    Sequences of another length than `length` are taken, too, if the patches divide them: positions are interpolated.

    Args:
        length, patch_size: samples; the patches must divide the length.
        dim, depth, heads: width D of the tokens, number of blocks, attention heads.
        readout: what the features are: the class token, the mean of the patch tokens, or both side by side (2 D wide).
        positions: position embeddings that learn, or fixed sines and cosines.
        in_channels: of the sequences: 1 of a wave, the mel bands of a spectrogram.
        drop_path: stochastic depth, rising to this rate at the last block.
        class_token: false for a network of patches alone (I-JEPA), with readout "mean".

    Raises:
        UserError: patches that do not divide the length, heads that do not divide the width, a readout of no token.
    """

    unit = "samples"

    def __init__(
        self,
        length: int = 1024,
        patch_size: int = 16,
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
        readout: Literal["cls", "mean", "both"] = "mean",
        positions: Literal["learned", "sincos"] = "learned",
        in_channels: int = 1,
        drop_path: float = 0.0,
        class_token: bool = True,
    ) -> None:
        super().__init__()
        if not class_token and readout != "mean":
            raise UserError("a transformer without class token is read by its patches; set backbone.readout=mean")
        if length % patch_size:
            raise UserError(
                f"patches of {patch_size} samples do not divide sequences of {length}; change one of the two"
            )
        if dim % heads:
            raise UserError(f"{heads} heads do not divide tokens {dim} wide; change backbone.heads or backbone.dim")
        self.length, self.readout = length, readout
        self.has_class_token, self.num_prefix_tokens = class_token, int(class_token)
        self.out_dim = 2 * dim if readout == "both" else dim
        self.patch_embed = PatchEmbed1d(length, patch_size, in_channels, dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if class_token else None
        self.pos_embed = nn.Parameter(torch.empty(1, self.num_prefix_tokens + length // patch_size, dim))
        self.norm_pre = nn.Identity()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.Sequential(
            *[Block(dim, heads, qkv_bias=True, drop_path=rate, norm_layer=norm) for rate in rates]
        )
        self.norm = norm(dim)
        self.apply(init_weights_vit_timm)
        self._start_positions(positions, dim)

    def _start_positions(self, positions: str, dim: int) -> None:
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if positions == "sincos":
            with torch.no_grad():
                self.pos_embed.zero_()[:, self.num_prefix_tokens :] = sincos_positions(self.grid, dim)
            self.pos_embed.requires_grad_(False)

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Embeddings of patches (B, N, D) -> tokens (B, R + N, D) with positions, resampled where N is another."""
        prefix, patches = self.pos_embed[:, : self.num_prefix_tokens], self.pos_embed[:, self.num_prefix_tokens :]
        if x.shape[1] != patches.shape[1]:
            patches = interpolate(patches.transpose(1, 2), size=x.shape[1], mode="linear").transpose(1, 2)
        x = x + patches
        if self.cls_token is None:
            return x
        return torch.cat([(self.cls_token + prefix).expand(len(x), -1, -1), x], 1)

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, R + N, D) -> features (B, out_dim)."""
        return read_tokens(tokens, self.num_prefix_tokens, self.readout)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.tokens(x))

    def refuse_size(self, size: Size, native: Sequence[int]) -> None:
        raise UserError(
            f"views of {shown(size)} samples for a transformer of {shown(native)}; set backbone.length to the views'"
        )

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which block, as timm's networks say it; for the rates of fine-tuning."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }
