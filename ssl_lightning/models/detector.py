"""torchvision's detectors around any backbone with a map: Faster R-CNN and RetinaNet on a feature pyramid.

Ren et al. 2015, https://arxiv.org/abs/1506.01497; Lin et al. 2017, https://arxiv.org/abs/1708.02002.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from ssl_lightning.core.counter import METHOD_STREAM, uniform
from ssl_lightning.models.pyramid import MOST, Pyramid, full_precision

Architecture = Literal["faster_rcnn", "retinanet"]
RATIOS = (0.5, 1.0, 2.0)
MOST_FOUND = 100  # boxes of an image
BOX, SCORE, LABEL, IGNORED = slice(0, 4), 4, 5, 5  # columns: of what is found box, score, label
NONE = -1.0  # the label of a row that holds no box


class Detector(nn.Module):
    """Images (B, C, S, S) -> boxes (B, 100, 6): x0, y0, x1, y1 in pixels, score, label; label -1 in empty rows.

    `network` is torchvision's own module; its class 0 is "nothing", so that our label l is its l + 1. In training mode,
    with targets (B, M, 6) of box, label (-1: no box) and whether the box is left out (1), the losses by their names.

    Args:
        backbone: see `Pyramid`; no child of this module.
        view: an example of its input, (1, C, S, S).
        classes: how many labels.
        architecture: "faster_rcnn" or "retinanet".
        width: channels of the pyramid.
        head_dim: width of Faster R-CNN's box head.
        samples: boxes of an image that its box head learns from in a step.
        anchor_scale: side of an anchor in strides of its level.
    """

    def __init__(
        self,
        backbone: nn.Module,
        view: Tensor,
        classes: int,
        architecture: Architecture = "faster_rcnn",
        width: int = 256,
        head_dim: int = 1024,
        samples: int = 512,
        anchor_scale: float = 8.0,
    ) -> None:
        super().__init__()
        side = int(view.shape[-1])
        # Views come normalised and of one size: torchvision's own preparation leaves them as they are.
        same = {
            "min_size": side,
            "max_size": side,
            "image_mean": [0.0] * view.shape[1],
            "image_std": [1.0] * view.shape[1],
        }
        same |= {"_skip_resize": True, "num_classes": classes + 1}
        if architecture == "retinanet":
            pyramid = Pyramid(backbone, view, width, min(3, MOST), LastLevelP6P7(width, width))
            anchors = anchors_of(
                [*pyramid.strides, 2 * pyramid.strides[-1], 4 * pyramid.strides[-1]], anchor_scale / 2, 3
            )
            self.network: Any = RetinaNet(pyramid, anchor_generator=anchors, detections_per_img=MOST_FOUND, **same)
        else:
            pyramid = Pyramid(backbone, view, width, MOST, LastLevelMaxPool())
            anchors = anchors_of([*pyramid.strides, 2 * pyramid.strides[-1]], anchor_scale)
            pool = MultiScaleRoIAlign([str(i) for i in range(len(pyramid.strides))], output_size=7, sampling_ratio=2)
            head = {"box_head": _box_head(width, head_dim), "box_predictor": _predictor(head_dim, classes + 1)}
            same["num_classes"] = None
            self.network = FasterRCNN(
                pyramid, rpn_anchor_generator=anchors, box_roi_pool=pool, box_batch_size_per_image=samples,
                box_detections_per_img=MOST_FOUND, **head, **same,
            )  # fmt: skip
            self._draw_by_counter()
        self.architecture, self.strides, self.anchors = architecture, pyramid.strides, anchors.sizes

    def _draw_by_counter(self) -> None:
        rpn, roi = self.network.rpn, self.network.roi_heads
        self.samplers = []
        for stream, part in enumerate((rpn, roi)):
            plain = part.fg_bg_sampler
            part.fg_bg_sampler = CountedSampler(plain.batch_size_per_image, plain.positive_fraction, stream)
            self.samplers.append(part.fg_bg_sampler)

    def draw_for(self, seed: int, epoch: int, indices: Tensor) -> None:
        """What the next losses are drawn from: which candidates of each image are learned from."""
        for sampler in getattr(self, "samplers", ()):
            sampler.key = (seed, epoch, indices)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        with full_precision(self.network.backbone, x.device.type):
            found = self.network(list(x), None if targets is None else [told(rows) for rows in targets])
        return found if targets is not None else table(found, x)


def told(rows: Tensor) -> dict[str, Tensor]:
    """One image's targets (M, 6) as torchvision takes them."""
    rows = rows[(rows[:, 4] >= 0) & (rows[:, IGNORED] == 0)]
    return {"boxes": rows[:, BOX], "labels": rows[:, 4].long() + 1}


def table(found: Sequence[dict[str, Tensor]], like: Tensor) -> Tensor:
    """torchvision's detections as one tensor (B, 100, 6), the surest first."""
    out = torch.zeros(len(found), MOST_FOUND, 6, device=like.device)
    out[:, :, LABEL] = NONE
    for row, one in zip(out, found, strict=True):
        order = one["scores"].argsort(descending=True, stable=True)[:MOST_FOUND]
        row[: len(order), BOX] = one["boxes"][order].to(out.dtype)
        row[: len(order), SCORE] = one["scores"][order].to(out.dtype)
        row[: len(order), LABEL] = one["labels"][order].to(out.dtype) - 1
    return out


def anchors_of(strides: Sequence[int], scale: float, octaves: int = 1) -> AnchorGenerator:
    """torchvision's anchors; its own detectors have a scale of 8 strides (of RetinaNet 4, in three sizes)."""
    sizes = tuple(tuple(int(scale * stride * 2 ** (i / octaves)) for i in range(octaves)) for stride in strides)
    return AnchorGenerator(tuple(tuple(max(1, s) for s in level) for level in sizes), (RATIOS,) * len(strides))


class CountedSampler:
    """torchvision's BalancedPositiveNegativeSampler, its choice a pure function of (seed, epoch, index).

    So a run that goes on, and one on several ranks, learns from the same candidates.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float, stream: int) -> None:
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction
        self.stream = METHOD_STREAM + stream
        self.key: tuple[int, int, Tensor] | None = None

    def __call__(self, matched: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each image's candidates (A,): 1 or more, matched; 0, background; below, neither. Two masks each."""
        assert self.key is not None, "draw_for comes first"
        seed, epoch, indices = self.key
        chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
        for index, found in zip(indices, matched, strict=True):
            rank = uniform(seed, epoch, index[None].to(found.device), self.stream, found.numel())[0]
            positive, negative = (found >= 1).nonzero()[:, 0], (found == 0).nonzero()[:, 0]
            most = min(int(self.batch_size_per_image * self.positive_fraction), positive.numel())
            rest = min(self.batch_size_per_image - most, negative.numel())
            for some, count, masks in ((positive, most, chosen[0]), (negative, rest, chosen[1])):
                mask = torch.zeros_like(found, dtype=torch.uint8)
                mask[some[rank[some].argsort(stable=True)[:count]]] = 1
                masks.append(mask)
        return chosen


def _box_head(width: int, head_dim: int) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import TwoMLPHead

    return TwoMLPHead(width * 7**2, head_dim)


def _predictor(head_dim: int, classes: int) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    return FastRCNNPredictor(head_dim, classes)
