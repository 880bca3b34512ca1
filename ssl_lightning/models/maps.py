"""Feature maps of any backbone, channels first."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_lightning.core.as_map import places_of
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import has_map, has_tokens, map_encoder, out_dim, per_axis, token_encoder
from ssl_lightning.models.channels import in_channels

__all__ = ["check_map", "feature_map", "has_map", "map_dim"]


def map_dim(backbone: nn.Module) -> int:
    """How many channels `feature_map` has."""
    return token_encoder(backbone).token_dim if has_tokens(backbone) else out_dim(backbone)


def feature_map(backbone: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Items (B, C, ...) -> features (B, out_dim) and the map that they are read from (B, D, *places)."""
    if has_tokens(backbone):
        encoder = token_encoder(backbone)
        tokens = encoder.tokens(x)
        patches = encoder.split(tokens)[1].transpose(1, 2)
        return encoder.read(tokens), patches.unflatten(2, places_of(x, encoder.strides))
    found = map_encoder(backbone).feature_map(x)
    return found.flatten(2).mean(2), found


@torch.no_grad()
def check_map(backbone: nn.Module, size: int | Sequence[int], width: int, stride: int | None = None) -> None:
    """Refuses a network in eval mode whose features are no mean of a map (1, width, *places), at `stride` if given.

    Layers behind the map (ConvNeXt's last norm) would get no gradient from a loss on the map.
    """
    sizes = per_axis(size, len(map_encoder(backbone).strides))
    shape = (1, in_channels(backbone), *sizes)
    x = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape).to(next(backbone.parameters()))
    features, found = feature_map(backbone, x)
    wanted = None if stride is None else tuple(length // stride for length in sizes)
    fits = found.ndim == 2 + len(sizes) and found.shape[1] == width and wanted in (None, tuple(found.shape[2:]))
    if not fits:
        sides = ", ".join(map(str, wanted)) if wanted else "h, w"
        raise UserError(
            f"this network makes {tuple(found.shape)} of an image of {size} px, where this method waits for a map "
            f"(1, {width}, {sides})" + ("" if stride is None else f" at a stride of {stride}; set method.stride")
        )
    if not torch.allclose(features, backbone(x), rtol=1e-3, atol=1e-4):
        raise UserError("this network's features are not the mean of its map; choose a ResNet, a Swin or a ViT")
