"""Convnets on audio whose map is a sequence: strided on waves, and on log-mels with the bands kept apart."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import conv_bn


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """How many samples one step of the last layer sees.

    >>> receptive_field((10, 8, 4, 4, 4), (5, 4, 2, 2, 2))
    465
    """
    field, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field


class WaveConvNet(nn.Module):
    """Strided 1-D convolutions on waves, as in CPC: (B, in_channels, L) -> (B, width), the mean over steps.

    van den Oord et al. 2018, section 3.1, https://arxiv.org/abs/1807.03748: kernels 10, 8, 4, 4, 4 and strides
    5, 4, 2, 2, 2, so a step is 160 samples. `feature_map` gives the steps themselves, (B, width, T) with
    T = floor(L / 160): at L from 160 on, each layer is padded by half of what its kernel is longer than its stride.

    Args:
        width: of all layers; 512 in the paper.
        in_channels: of the waves.
        kernels, layer_strides: of the layers, from the wave on.
        norm: "batch", or "group" (one group a clip, as wav2vec has it) where clips of a batch must not see each other.

    Attributes:
        out_dim: `width`. strides: (160,), of a step. receptive_field: 465, samples that a step sees.
    """

    reads = "waves"

    def __init__(
        self,
        width: int = 128,
        in_channels: int = 1,
        kernels: Sequence[int] = (10, 8, 4, 4, 4),
        layer_strides: Sequence[int] = (5, 4, 2, 2, 2),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if len(kernels) != len(layer_strides) or any(k < s for k, s in zip(kernels, layer_strides, strict=False)):
            raise UserError(
                f"backbone.kernels={list(kernels)} and backbone.layer_strides={list(layer_strides)} do not fit; give "
                "as many of each, no kernel shorter than its stride"
            )
        if norm not in ("batch", "group"):
            raise UserError(f"backbone.norm={norm} is unknown; use batch or group")
        self.out_dim = width
        self.strides = (math.prod(layer_strides),)
        self.receptive_field = receptive_field(kernels, layer_strides)
        self.layers = nn.ModuleList()
        for kernel, stride in zip(kernels, layer_strides, strict=True):
            conv = nn.Conv1d(in_channels, width, kernel, stride, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
            own: nn.Module = nn.BatchNorm1d(width) if norm == "batch" else nn.GroupNorm(1, width)
            self.layers.append(nn.ModuleDict({"conv": conv, "norm": own}))
            in_channels = width

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, in_channels, L) -> (B, width, T), one step for every `strides[0]` samples."""
        if x.shape[-1] < self.strides[0]:
            raise UserError(
                f"waves of {x.shape[-1]} samples are shorter than a step of this network, {self.strides[0]}"
            )
        for layer in self.layers:
            conv, norm = layer["conv"], layer["norm"]  # type: ignore[index]
            more = conv.kernel_size[0] - conv.stride[0]
            x = F.relu(norm(conv(F.pad(x, (more // 2, more - more // 2)))))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean(2)  # (B, width)


class MelConvNet(nn.Module):
    """A small convnet on log-mels that keeps the bands apart: (B, in_channels, F, T) -> (B, out_dim), any T.

    The form of BYOL-A's encoder (Niizumi et al. 2021, https://arxiv.org/abs/2103.06695): convolutions that each halve
    both axes, then for each step in time its bands and channels together through two layers; the features are the mean
    plus the largest over time. A mean over bands, as images' convnets take it, would lose which band it was.

    Args:
        mels: F.
        width: channels of the convolutions.
        out_dim: of the features.
        in_channels: of the spectrogram.
        layers: convolutions, each of which halves F and T (rounded up).

    Attributes:
        strides: (2^layers,), frames that a step of `feature_map` stands for.
    """

    reads = "log-mels of sound"

    def __init__(
        self, mels: int = 64, width: int = 48, out_dim: int = 256, in_channels: int = 1, layers: int = 3
    ) -> None:
        super().__init__()
        self.mels, self.out_dim, self.strides = mels, out_dim, (2**layers,)
        self.convs = nn.ModuleList(conv_bn(in_channels if i == 0 else width, width, stride=2) for i in range(layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        bands = -(-mels // 2**layers)
        self.hidden = nn.Linear(bands * width, out_dim)
        self.last = nn.Linear(out_dim, out_dim)

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, in_channels, F, T) -> (B, out_dim, ceil(T / strides[0]))."""
        if x.shape[-2] != self.mels:
            raise UserError(f"log-mels of {x.shape[-2]} bands for a network of {self.mels}; set backbone.mels")
        for conv in self.convs:
            x = F.relu(conv(x))  # (B, width, F / 2, T / 2)
        steps = x.flatten(1, 2).transpose(1, 2)  # (B, T', width F')
        return F.relu(self.last(F.relu(self.hidden(steps)))).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.feature_map(x)
        return steps.mean(2) + torch.amax(steps, 2)  # (B, out_dim)
