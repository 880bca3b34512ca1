"""Maps of several resolutions from any backbone with a map, as torchvision's detectors and segmenters take them.

A convolutional network gives the maps of its stages to a feature pyramid (Lin et al. 2017,
https://arxiv.org/abs/1612.03144; torchvision's own module). A network of one map, such as a ViT, gets the simple
feature pyramid of ViTDet (Li et al. 2022, https://arxiv.org/abs/2203.16527).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import has_map, has_tokens, map_encoder

MOST = 4  # levels of a pyramid, the coarsest of a network's


def stage_maps(network: Any, x: Tensor) -> list[Tensor]:
    """The maps (B, C, h, w) at the end of each stage of a network, the finest first; of a ViT the one that it has."""
    if hasattr(network, "stage_maps"):
        return list(network.stage_maps(x))
    if not has_tokens(network) and (stages := _stages_of_timm(network)):
        return _hooked(network, x, stages)
    return [map_encoder(network, "a dense task").feature_map(x)]


def _stages_of_timm(network: Any) -> dict[str, int]:
    """{the name of the module that ends a stage: its channels} of timm's convolutional networks; else {}."""
    info = getattr(network, "feature_info", None)
    known = isinstance(info, list) and all(isinstance(one, dict) and "module" in one for one in info)
    if not known or not info or len({one["reduction"] for one in info}) < 2:
        return {}
    return {one["module"]: int(one["num_chs"]) for one in info}


def _hooked(network: Any, x: Tensor, stages: dict[str, int]) -> list[Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args, out: found.__setitem__(name, out)

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in stages]
    try:
        network.forward_features(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [_channels_first(found[name], channels) for name, channels in stages.items() if name in found]


def _channels_first(x: Tensor, channels: int) -> Tensor:
    return x.permute(0, 3, 1, 2) if x.shape[1] != channels == x.shape[3] else x  # timm's Swin has channels last


class Pyramid(nn.Module):
    """Images (B, C, H, W) -> {"0": (B, width, h, w), "1": ...}, the finest first.

    The backbone is no child of it: whoever holds both registers each once. Parameters of the maps of stages are under
    `fpn`, with torchvision's names; those of a single map are under `simple`.

    Args:
        backbone: with the maps of its stages, or with one map.
        view: an example of what it is given, (1, C, H, W).
        width: channels of every level.
        levels: at most so many, the coarsest ones.
        extra: torchvision's further levels above the coarsest.

    Attributes:
        strides: pixels between two places of each level, without the extra ones.

    Raises:
        UserError: a network without a map, or of a map whose sides are no part of the view's.
    """

    def __init__(
        self,
        backbone: nn.Module,
        view: Tensor,
        width: int = 256,
        levels: int = MOST,
        extra: ExtraFPNBlock | None = None,
    ) -> None:
        super().__init__()
        if not has_map(backbone) and not hasattr(backbone, "stage_maps"):
            raise UserError("boxes and masks need a network with a feature map; choose a ResNet, a convnet or a ViT")
        self.held = (backbone,)  # a tuple is no child
        self.dtype: torch.dtype | None = None  # of the backbone in mixed precision
        self.out_channels, self.width = width, width
        maps = _looked_at(backbone, view)
        steps = [_stride(view, one) for one in maps]
        if len(maps) > 1:
            self.chosen = tuple(range(len(maps)))[-levels:]
            self.fpn: nn.Module | None = FeaturePyramidNetwork([maps[i].shape[1] for i in self.chosen], width, extra)
            self.simple: nn.Module | None = None
            self.strides = tuple(steps[i] for i in self.chosen)
        else:
            self.chosen, self.fpn = (0,), None
            self.simple = SimplePyramid(maps[0].shape[1], width, extra)
            self.strides = tuple(max(1, int(steps[0] / up)) for up in SimplePyramid.FACTORS)

    @property
    def backbone(self) -> nn.Module:
        return self.held[0]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype is not None):
            maps = stage_maps(self.backbone, x)
        chosen = [maps[i].float() for i in self.chosen]
        if self.simple is not None:
            return self.simple(chosen[0])  # type: ignore[no-any-return]
        assert self.fpn is not None
        found: OrderedDict[str, Tensor] = self.fpn(OrderedDict((str(i), one) for i, one in enumerate(chosen)))
        return found


@contextmanager
def full_precision(pyramid: Pyramid, device: str) -> Iterator[None]:
    """Mixed precision for the backbone alone: anchors, boxes, heads and their losses are float32."""
    pyramid.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    with torch.autocast(device, enabled=False):
        yield


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimplePyramid(nn.Module):
    """One map at stride s -> maps at s/4, s/2, s and 2 s: ViTDet's, section 3, without top-down paths.

    Deconvolutions of 2 x 2 make it finer, a max-pool coarser; then 1 x 1 and 3 x 3 convolutions, each with a norm.
    """

    FACTORS = (4, 2, 1, 0.5)

    def __init__(self, in_channels: int, width: int, extra: ExtraFPNBlock | None = None) -> None:
        super().__init__()
        half, quarter = max(1, in_channels // 2), max(1, in_channels // 4)
        finer = nn.Sequential(
            nn.ConvTranspose2d(in_channels, half, 2, 2), ChannelNorm(half), nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )  # fmt: skip
        scales = (
            (finer, quarter),
            (nn.ConvTranspose2d(in_channels, half, 2, 2), half),
            (nn.Identity(), in_channels),
            (nn.MaxPool2d(2, 2, ceil_mode=True), in_channels),
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                scale,
                nn.Conv2d(dim, width, 1, bias=False), ChannelNorm(width),
                nn.Conv2d(width, width, 3, padding=1, bias=False), ChannelNorm(width),
            )
            for scale, dim in scales
        )  # fmt: skip
        self.extra = extra

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = [level(x) for level in self.levels]
        names = [str(i) for i in range(len(maps))]
        if self.extra is not None:
            maps, names = self.extra(maps, maps, names)
        return OrderedDict(zip(names, maps, strict=True))


@torch.no_grad()
def _looked_at(backbone: nn.Module, view: Tensor) -> list[Tensor]:
    """The maps of one view in evaluation mode, each submodule's own mode kept."""
    flags = {module: module.training for module in backbone.modules()}
    try:
        return stage_maps(backbone.eval(), view)
    finally:
        for module, flag in flags.items():
            module.training = flag


def _stride(view: Tensor, found: Tensor) -> int:
    if found.ndim != 4 or min(found.shape[2:]) < 1:
        raise UserError(
            f"this network makes {tuple(found.shape)} of an image, where a dense task needs a map (B, C, h, w)"
        )
    return max(1, round(view.shape[3] / found.shape[3]))
