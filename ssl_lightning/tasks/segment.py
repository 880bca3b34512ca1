"""task=segment: the class of each pixel. torchvision's FCN head; mean intersection over union."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassJaccardIndex

from ssl_lightning.core.task import MASKS, Reads
from ssl_lightning.models.segmenter import Segmenter
from ssl_lightning.tasks.dense import DenseTask

IGNORED = 255  # the class of pixels that count in no loss and no metric, as in Pascal VOC


class Segment(DenseTask):
    """Targets (B, H, W) uint8: the class of each pixel, 255 where it counts nowhere; outputs are logits (B, K, H, W).

    Class 0 is the background where the data has one; it counts in the mean as every class does.

    Args:
        width: channels of the feature pyramid.
    """

    main, chance = "miou", "most_common_class"
    reads: ClassVar[Reads] = MASKS
    takes = word_of = "masks"
    bounded = True
    stages: ClassVar[tuple[str, ...]] = ("segment",)

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.width = width

    def head_of(self, backbone: nn.Module) -> nn.Module:
        assert self.view is not None, "seeing comes first"
        return Segmenter(backbone, self.view.to(next(backbone.parameters())), len(self.names), self.width)

    def answers(self, outputs: Tensor) -> Tensor:
        """(B, H, W) float32, the likeliest class."""
        return outputs.argmax(dim=1).float()

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0, reduction: Any = "mean") -> Tensor:
        """Cross-entropy: the mean over an image's pixels that count, then the mean (or sum) over images.

        So an image weighs the same whatever it is batched with, and the mean over ranks is that of one process.
        """
        each = F.cross_entropy(
            outputs, targets.long(), ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
        )
        counts = (targets != IGNORED).flatten(1).sum(1).clamp(min=1)
        found = each.flatten(1).sum(1) / counts  # (B,)
        return found.mean() if reduction == "mean" else found.sum()

    def losses(self, head: nn.Module, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"pixels": self.loss(head(x), targets)}

    def picking_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets, reduction="sum")

    def metrics(self) -> MetricCollection:
        return MetricCollection({"miou": self._jaccard("macro")})

    def _jaccard(self, average: Any) -> Any:
        # Of a class that neither the masks nor the answers have nothing is counted. `computed` brings ranks together:
        # torchmetrics' own way fails for what is on the CPU while NCCL joins the ranks.
        return MulticlassJaccardIndex(
            max(2, len(self.names)),
            average=average,
            ignore_index=IGNORED,
            validate_args=False,
            sync_on_compute=False,
        )

    def measurable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return outputs.long(), targets.long()

    def per_class(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        metric = self._jaccard("none")
        metric.update(*self.measurable(answers, targets))
        values, seen = metric.compute(), torch.bincount(targets.flatten().long(), minlength=IGNORED + 1)
        return {name: float(values[label]) for label, name in enumerate(self.names) if seen[label]}

    def word(self, value: float) -> str:
        return f"mIoU {100 * value:.1f} %"

    def predict(self, outputs: Tensor) -> list[dict[str, Any]]:
        """The share of each item's pixels that each class has."""
        found = []
        for row in outputs.argmax(dim=1):
            shares = torch.bincount(row.flatten(), minlength=len(self.names)) / row.numel()
            found.append(dict(zip(self.names, shares.tolist(), strict=True)))
        return found
