"""A small convnet that pretrains in minutes on a CPU."""

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(in_dim: int, out_dim: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution and BatchNorm."""
    return nn.Sequential(nn.Conv2d(in_dim, out_dim, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out_dim))


class ResidualBlock(nn.Module):
    """relu(x + f(x)) with f two 3x3 convolutions: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(dim, dim)
        self.conv2 = conv_bn(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class ConvNetSmall(nn.Module):
    """Three convolutions, each halving the resolution, and one residual block: (B, C, H, W) -> (B, 4 * width).

    With width 48 it has 0.87 million parameters. The features are the mean over all places, so any image size goes.
    """

    stages = ("conv2", "conv3", "block")  # each is given the map of the stage before

    def __init__(self, width: int = 48, in_channels: int = 3) -> None:
        super().__init__()
        self.out_dim = 4 * width
        self.conv1 = conv_bn(in_channels, width, stride=2)
        self.conv2 = conv_bn(width, 2 * width, stride=2)
        self.conv3 = conv_bn(2 * width, 4 * width, stride=2)
        self.block = ResidualBlock(4 * width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """The feature map, before the mean over places: (B, 3, H, W) -> (B, 4 * width, H/8, W/8)."""
        return self.stage_maps(x)[-1]

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """The maps of the three resolutions, the finest first."""
        first = F.relu(self.conv1(x))  # (B, width, H/2, W/2)
        second = F.relu(self.conv2(first))  # (B, 2 width, H/4, W/4)
        return [first, second, self.block(F.relu(self.conv3(second)))]  # the last (B, 4 width, H/8, W/8)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x).mean(dim=(2, 3))  # (B, 4 width)
