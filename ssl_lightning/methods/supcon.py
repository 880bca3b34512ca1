"""SupCon: SimCLR with labels, where all images of a class attract each other. The upper bound of the contrastive ones.

Khosla et al. 2020, "Supervised Contrastive Learning", https://arxiv.org/abs/2004.11362
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ssl_lightning.core.batch import Batch, concat
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput

NO_LABELS = "supcon learns from labels, and these images have none; choose another method"


class SupCon(SSLMethod):
    """Section 3.2.2 of the paper. An image without a label attracts its own other view alone, as in SimCLR.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P).
        loss: scores two batches of projections and their labels, e.g. `SupConLoss`.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.loss = self.scoring(loss, "z1", "z2", "labels")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        images = getattr(self.trainer.datamodule, "train_set", None)  # type: ignore[attr-defined]
        if images is not None and not (images.labels >= 0).any():
            raise UserError(NO_LABELS)

    def batch_of(self, batch: Any, number: int) -> Batch:
        found = super().batch_of(batch, number)
        if found is not batch and not (found.labels >= 0).any():
            raise UserError(NO_LABELS)
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        features = self.backbone(concat(batch.global_views))  # (2B, D)
        z1, z2 = self.projector(features).chunk(2)  # (B, P) each
        return self.output(self.loss(z1, z2, batch.labels), features, z1, z2)
