"""Rotation prediction: by how many quarter turns has this image been turned?

Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image Rotations", https://arxiv.org/abs/1803.07728
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput


class Rotation(SSLMethod):
    """Section 3 of the paper: each image of the batch enters in all four turns.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        loss: scores (4B, 4) against the turns (4B,), e.g. `torch.nn.CrossEntropyLoss`.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    global_views = 1
    modality = "image"

    def __init__(self, backbone: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], **optim: Any) -> None:
        super().__init__(backbone, **optim)
        self.head = nn.Linear(out_dim(backbone), 4)
        self.loss = self.scoring(loss, "scores", "turns")

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x = batch.views[0]
        turned = torch.cat([torch.rot90(x, k, (2, 3)) for k in range(4)])  # (4B, 3, H, W)
        turns = torch.arange(4, device=x.device).repeat_interleave(len(x))  # (4B,)
        features = self.backbone(turned)  # (4B, D)
        scores = self.head(features)  # (4B, 4)
        upright = features[: len(x)]
        return self.output(
            self.loss(scores, turns), upright, upright, turn_top1=(scores.argmax(1) == turns).float().mean()
        )
