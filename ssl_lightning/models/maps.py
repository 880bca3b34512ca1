"""Feature maps of any backbone, channels first."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.errors import UserError
from ssl_lightning.models.channels import in_channels
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


@torch.no_grad()
def check_map(backbone: nn.Module, size: int, width: int, stride: int | None = None) -> None:
    """Refuses a network in eval mode whose features are not the mean of a map (1, width, h, w), at `stride` if given.

    Layers behind the map (ConvNeXt's last norm) would get no gradient from a loss on the map.
    """
    shape = (1, in_channels(backbone), size, size)
    x = torch.linspace(-1, 1, shape[1] * size * size).view(shape).to(next(backbone.parameters()))
    features, found = feature_map(backbone, x)
    side = "h" if stride is None else str(size // stride)
    fits = found.ndim == 4 and found.shape[1] == width and (stride is None or found.shape[2:] == (size // stride,) * 2)
    if not fits:
        raise UserError(
            f"this network makes {tuple(found.shape)} of an image of {size} px, where this method waits for a map "
            f"(1, {width}, {side}, {side})" + ("" if stride is None else f" at a stride of {stride}; set method.stride")
        )
    if not torch.allclose(features, backbone(x), rtol=1e-3, atol=1e-4):
        raise UserError("this network's features are not the mean of its map; choose a ResNet, a Swin or a ViT")
