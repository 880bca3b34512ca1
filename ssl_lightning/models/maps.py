"""Feature maps of any backbone, channels first."""

from typing import Any

from torch import Tensor, nn

from ssl_lightning.models.vit import ViT


def has_map(backbone: nn.Module) -> bool:
    """Whether `feature_map` can take this network."""
    return isinstance(backbone, ViT) or hasattr(backbone, "forward_features")


def feature_map(backbone: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) -> features (B, out_dim) and the map that they are read from (B, D, h, w)."""
    net: Any = backbone
    if isinstance(backbone, ViT):
        tokens = backbone.tokens(x)
        size = x.shape[-2] // backbone.patch_size, x.shape[-1] // backbone.patch_size
        return backbone.read(tokens), backbone.split(tokens)[1].transpose(1, 2).unflatten(2, size)
    found = net.forward_features(x)
    if found.ndim == 4 and found.shape[1] != net.out_dim and found.shape[3] == net.out_dim:
        found = found.permute(0, 3, 1, 2)  # timm's Swin has channels last
    return found.flatten(2).mean(2), found
