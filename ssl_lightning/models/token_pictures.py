"""Pictures of tokens: where a class token looks, and the tokens of the patches as colours."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_lightning.core.as_map import places_of
from ssl_lightning.core.protocols import attends, has_tokens, token_encoder


def attention_pictures(backbone: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    """For images (B, C, H, W) the maps of the class token, a column per head, and the patch tokens as colours.

    Each map is scaled to its own range, as in the authors' figures: black is its least, white its most. Networks
    without tokens, and items that are no images, have neither; those without a class token have no maps.
    """
    if not has_tokens(backbone) or x.ndim != 4:
        return {}
    if not attends(backbone):
        return {"patch_pca": patch_pictures(backbone, x)}
    encoder: Any = backbone
    maps = encoder.attention(x).float()
    least, most = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    maps = (maps - least) / (most - least).clamp_min(1e-12)
    columns = [_pixels(one[:, None].expand(-1, 3, -1, -1), x) for one in maps.unbind(1)]
    return {"attention": [x, *columns], "patch_pca": patch_pictures(backbone, x)}


def patch_pictures(backbone: nn.Module, x: Tensor) -> list[Tensor]:
    """Images (B, C, H, W), and a token encoder's patch tokens of them as colours (B, 3, H, W).

    The colours are the three principal components of the tokens of all images together, each scaled to its range (as
    in Oquab et al. 2023, figure 1).
    """
    encoder = token_encoder(backbone)
    tokens = encoder.split(encoder.tokens(x))[1].float()  # (B, N, D)
    flat = tokens.flatten(0, 1) - tokens.mean((0, 1))
    axes = torch.linalg.svd(flat, full_matrices=False)[2][:3]  # (3, D)
    axes = axes * axes.sum(1, keepdim=True).sign()  # a component's sign is arbitrary
    colours = flat @ axes.T  # (B N, 3)
    low, high = colours.amin(0), colours.amax(0)
    colours = ((colours - low) / (high - low).clamp_min(1e-12)).view(len(x), *places_of(x, encoder.strides), 3)
    return [x, _pixels(colours.permute(0, 3, 1, 2), x)]


def _pixels(values: Tensor, like: Tensor) -> Tensor:
    """Values in [0, 1] (B, 3, h, w) as uint8 pictures as large as the images (B, 3, H, W)."""
    return (255 * interpolate(values, size=like.shape[-2:], mode="nearest")).round().to(torch.uint8)
