"""Supervised training: cross-entropy on labels. No self-supervision, but the line that it is compared with.

He et al. 2015, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385 (any network will do)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch, concat
from ssl_lightning.core.distributed import gather_rows, world_size
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput

NO_LABELS = "supervised learns from one class for each item, and this data has none; choose another method"


class Supervised(SSLMethod):
    """Both views of an item are to be told its class. An item without a label is left out.

    Args:
        backbone: items -> features (B, D), with `out_dim`.
        classes: how many; None: those of the data, when it is read.
        label_smoothing: share of the target spread over all classes.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    head: nn.Linear | None

    def __init__(
        self, backbone: nn.Module, classes: int | None = None, label_smoothing: float = 0.0, **optim: Any
    ) -> None:
        super().__init__(backbone, **optim)
        self.head = self.linear(classes) if classes else None
        self.label_smoothing = label_smoothing

    def linear(self, classes: int) -> nn.Linear:
        """A linear layer that begins near 0, by the method's seed alone."""
        head = nn.Linear(out_dim(self.backbone), classes)
        nn.init.trunc_normal_(head.weight, std=0.01, generator=torch.Generator().manual_seed(self.seed))
        nn.init.zeros_(head.bias)
        return head

    def setup(self, stage: str) -> None:
        """Only the data tell how many classes there are; they are read by now, and a checkpoint is loaded later."""
        data: Any = getattr(self._trainer, "datamodule", None)
        items = getattr(data, "train_set", None)
        if items is not None and not bool((items.labels >= 0).any()):
            raise UserError(NO_LABELS)
        if self.head is None:
            if items is None:
                raise UserError("supervised does not know how many classes there are; pass classes=")
            with torch.random.fork_rng(devices=[]):
                self.head = self.linear(data.num_classes).to(self.device)
        super().setup(stage)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        assert self.head is not None
        views = batch.global_views
        features = self.backbone(concat(views))  # (VB, D)
        scores, labels = self.head(features), batch.labels.repeat(len(views))  # (VB, K), (VB,)
        right = (scores.argmax(1) == labels)[labels >= 0].float().mean()
        return self.output(self.loss(scores, labels), features, *features.chunk(len(views))[:2], top1=right)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of scores (B, K) over the items of all ranks whose label (B,) is not -1."""
        known = labels >= 0
        count = gather_rows(known.sum()[None]).sum().clamp(min=1)
        each = F.cross_entropy(scores, labels.clamp(min=0), label_smoothing=self.label_smoothing, reduction="none")
        return (each * known).sum() * world_size() / count
