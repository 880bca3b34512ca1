"""torchvision's FCN head around any backbone with a map, on the finest level of its pyramid.

Long et al. 2015, https://arxiv.org/abs/1411.4038. The finest level of a feature pyramid holds what the coarser ones
see (Kirillov et al. 2019, https://arxiv.org/abs/1901.02446), so the backbone needs no dilation.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCN, FCNHead

from ssl_lightning.models.pyramid import MOST, Pyramid, full_precision


class Finest(Pyramid):
    """The finest level alone, under the name that torchvision's segmenters ask for."""

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(out=super().forward(x)["0"])


class Segmenter(nn.Module):
    """Images (B, C, H, W) -> logits (B, K, H, W). `network` is torchvision's own FCN.

    Args:
        backbone: see `Pyramid`; no child of this module.
        view: an example of its input, (1, C, S, S).
        classes: K, the background among them.
        width: channels of the pyramid.
    """

    def __init__(self, backbone: nn.Module, view: Tensor, classes: int, width: int = 256) -> None:
        super().__init__()
        pyramid = Finest(backbone, view, width, MOST)
        self.network: Any = FCN(pyramid, FCNHead(width, classes))
        self.strides = pyramid.strides

    def draw_for(self, seed: int, epoch: int, indices: Tensor) -> None:
        """Nothing is drawn for an image."""

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(self.network.backbone, x.device.type):
            found: Tensor = self.network(x)["out"]
        return found
