"""task=detect: boxes with a class each. torchvision's Faster R-CNN or RetinaNet; COCO's mean average precision."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import BOXES, Reads
from ssl_lightning.models.detector import BOX, IGNORED, LABEL, SCORE, Architecture, Detector
from ssl_lightning.tasks.dense import DenseTask

DENSE_EXTRA = (
    "mean average precision needs pycocotools, which is not installed; install the extra: "
    "pip install 'ssl_lightning[dense]'"
)


class Detect(DenseTask):
    """Targets (B, M, 6) float32: x0, y0, x1, y1 in pixels, class (-1: no box), 1 where a box counts in no metric.

    What the network says is (B, 100, 6): box, score, class. Class names are the data's.

    Args:
        architecture: "faster_rcnn" or "retinanet", torchvision's, on the backbone's feature pyramid.
        width: channels of the pyramid.
        head_dim: width of Faster R-CNN's box head.
        samples: boxes of an image that this head learns from in a step.
        anchor_scale: side of an anchor in strides of its level; torchvision's is 8.
    """

    main = "map"
    reads: ClassVar[Reads] = BOXES
    takes = word_of = "boxes"
    stages: ClassVar[tuple[str, ...]] = ("detect",)

    def __init__(
        self,
        architecture: Architecture = "faster_rcnn",
        width: int = 256,
        head_dim: int = 1024,
        samples: int = 512,
        anchor_scale: float = 8.0,
    ) -> None:
        super().__init__()
        if architecture not in ("faster_rcnn", "retinanet"):
            raise UserError(f"task.architecture={architecture} is unknown; use faster_rcnn or retinanet")
        self.architecture, self.width, self.head_dim = architecture, width, head_dim
        self.samples, self.anchor_scale = samples, anchor_scale

    def head_of(self, backbone: nn.Module) -> nn.Module:
        assert self.view is not None, "seeing comes first"
        sizes = (self.architecture, self.width, self.head_dim, self.samples, self.anchor_scale)
        like = next(backbone.parameters())
        return Detector(backbone, self.view.to(like), len(self.names), *sizes)

    def losses(self, head: nn.Module, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return cast(dict[str, Tensor], head(x, targets))

    def metrics(self) -> MetricCollection:
        return MetricCollection({"map": _precision()})

    def measurable(self, outputs: Tensor, targets: Tensor) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
        """As torchmetrics takes them; boxes that count in no metric are its crowds."""
        said, true = [], []
        for row in outputs.float():
            row = row[row[:, LABEL] >= 0]
            said.append({"boxes": row[:, BOX], "scores": row[:, SCORE], "labels": row[:, LABEL].long()})
        for row in targets.float():
            row = row[row[:, 4] >= 0]
            true.append({"boxes": row[:, BOX], "labels": row[:, 4].long(), "iscrowd": row[:, IGNORED].long()})
        return said, true

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """`map` over IoU 0.5 to 0.95, `map_50` and `map_75`."""
        found = self._computed(outputs, targets)
        return {name: float(found[name]) for name in ("map", "map_50", "map_75")}

    def per_class(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        found = self._computed(answers, targets, class_metrics=True)
        pairs = zip(found["classes"].flatten().tolist(), found["map_per_class"].flatten().tolist(), strict=True)
        return {self.names[int(label)]: value for label, value in pairs if value >= 0}

    def _computed(self, outputs: Tensor, targets: Tensor, **options: Any) -> dict[str, Tensor]:
        metric = _precision(**options)
        metric.update(*self.measurable(outputs.to("cpu"), targets.to("cpu")))
        return cast(dict[str, Tensor], metric.all())

    def word(self, value: float) -> str:
        return f"mAP {100 * value:.1f} %"

    def predict(self, outputs: Tensor) -> list[dict[str, Any]]:
        """The boxes of each item, the surest first."""
        return [
            {"boxes": [
                {"box": one[BOX].tolist(), "class": self.names[int(one[LABEL])], "score": float(one[SCORE])}
                for one in row if one[LABEL] >= 0
            ]}
            for row in outputs
        ]  # fmt: skip


def _precision(**options: Any) -> Any:
    """torchmetrics' mean average precision, which gives one number: `compute` its `map`, `all` the whole."""
    try:
        import pycocotools  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(DENSE_EXTRA) from error
    from torchmetrics.detection import MeanAveragePrecision

    class Precision(MeanAveragePrecision):
        def compute(self) -> Any:
            return super().compute()["map"].clamp(min=0)  # -1 where there is no box to find

        def all(self) -> dict[str, Tensor]:
            found: dict[str, Tensor] = super().compute()
            return found

    return Precision(backend="pycocotools", **options)


def matched(said: Tensor, true: Tensor, threshold: float = 0.5, sure: float = 0.5) -> tuple[Tensor, Tensor]:
    """Of one item's boxes: (which of the surest (M, 6) are right, which of the true ones (K, 6) are found).

    A box is right that overlaps a true one of its class, not yet found by a surer one, by an IoU of `threshold`.
    """
    from torchvision.ops import box_iou

    said = said[(said[:, LABEL] >= 0) & (said[:, SCORE] >= sure)]
    true = true[true[:, 4] >= 0]
    right, found = torch.zeros(len(said), dtype=torch.bool), torch.zeros(len(true), dtype=torch.bool)
    if not len(said) or not len(true):
        return right, found
    overlap = box_iou(said[:, BOX], true[:, BOX]) * (said[:, LABEL, None] == true[None, :, 4])
    for i, row in enumerate(overlap):
        best = (row * ~found).argmax()
        if row[best] * ~found[best] >= threshold:
            right[i] = found[best] = True
    return right, found
