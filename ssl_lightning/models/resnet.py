"""ResNets: torchvision's own, with the classifier taken off and the stem as an option.

Deep Residual Learning (He et al. 2015), https://arxiv.org/abs/1512.03385. The CIFAR stem is the one of SimCLR,
appendix B.9, https://arxiv.org/abs/2002.05709.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from ssl_lightning.core.errors import UserError, did_you_mean

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
STEMS = ("imagenet", "cifar")


class ResNet(models.ResNet):
    """torchvision's, without a classifier, that also gives its feature map, under the name timm has for it."""

    out_dim: int
    stages = ("layer2", "layer3", "layer4")  # each is given the map of the stage before

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, out_dim, h, w), before the mean over places."""
        return self.stage_maps(x)[-1]

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the map at the end of each of its four stages (C2 to C5), the finest first."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.avgpool(self.forward_features(x)), 1)  # (B, out_dim)


def resnet(
    name: str = "resnet18", stem: str = "imagenet", zero_init_residual: bool = False, in_channels: int = 3
) -> ResNet:
    """torchvision's ResNet `name` as a backbone: (B, in_channels, H, W) -> (B, out_dim).

    The state_dict has torchvision's own keys, without `fc`. `stem="cifar"` makes the first convolution 3x3 with
    stride 1 and takes the max-pool out, so that images of about 32 px keep their resolution.
    `zero_init_residual` starts every block as the identity.

    Raises:
        UserError: a name or stem that does not exist.
    """
    if name not in RESNETS:
        raise UserError(f"no ResNet named {name!r};{did_you_mean(name, RESNETS)} Choose one of {', '.join(RESNETS)}")
    if stem not in STEMS:
        raise UserError(f"no stem named {stem!r};{did_you_mean(stem, STEMS)} Choose 'imagenet' or 'cifar'")
    net: Any = getattr(models, name)(weights=None, zero_init_residual=zero_init_residual)
    if stem == "cifar":
        net.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
        net.maxpool = nn.Identity()
    elif in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.out_dim = net.fc.in_features
    net.fc = nn.Identity()
    net.__class__ = ResNet  # torchvision's builders name their class; ours has the same layers and one method more
    return net
