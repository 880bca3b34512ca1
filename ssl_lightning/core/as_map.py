"""Networks that have no `feature_map` seen as a `MapEncoder`: token encoders, and networks of images of timm's form."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class _Map:
    def __init__(self, network: Any) -> None:
        self.network = network

    @property
    def out_dim(self) -> int:
        return int(self.network.out_dim)

    def __call__(self, x: Tensor) -> Tensor:
        return self.network(x)


class MapOfTokens(_Map):
    """The tokens of the patches, laid out on their grid."""

    @property
    def strides(self) -> tuple[int, ...]:
        return self.network.strides

    def feature_map(self, x: Tensor) -> Tensor:
        patches = self.network.split(self.network.tokens(x))[1]
        return patches.transpose(1, 2).unflatten(2, places_of(x, self.strides))


class MapOfImages(_Map):
    """A convolutional network of images that gives its map by `forward_features`."""

    @property
    def strides(self) -> tuple[int, int]:
        """As timm's networks state them; others are asked with an image of 64 px."""
        stages = getattr(self.network, "feature_info", None)
        if isinstance(stages, list) and stages and isinstance(stages[-1], dict) and "reduction" in stages[-1]:
            return (int(stages[-1]["reduction"]),) * 2
        network = copy.deepcopy(self.network).eval()
        first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
        with torch.no_grad():
            x = torch.zeros(1, first.in_channels if first else 3, 64, 64).to(next(network.parameters()))
            found = MapOfImages(network).feature_map(x)
        return 64 // found.shape[2], 64 // found.shape[3]

    def feature_map(self, x: Tensor) -> Tensor:
        found = self.network.forward_features(x)
        if found.ndim == 4 and found.shape[1] != self.out_dim and found.shape[3] == self.out_dim:
            found = found.permute(0, 3, 1, 2)  # timm's Swin has channels last
        return found


def places_of(x: Tensor, strides: Sequence[int]) -> tuple[int, ...]:
    """How many places the map of items (B, C, ...) has along each axis."""
    return tuple(length // stride for length, stride in zip(x.shape[2:], strides, strict=True))
