"""SimCLR: two views of an image attract, all other views of the batch repel.

Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", https://arxiv.org/abs/2002.05709
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ssl_lightning.core.batch import Batch, concat
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput


class SimCLR(SSLMethod):
    """Algorithm 1 of the paper.

    Args:
        backbone: images -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P).
        loss: scores two batches of projections, e.g. `NTXent`.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(out_dim(backbone))
        self.loss = self.scoring(loss, "z1", "z2")

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        features = self.backbone(concat(batch.global_views))  # (2B, D)
        z1, z2 = self.projector(features).chunk(2)  # (B, P) each
        return self.output(self.loss(z1, z2), features, z1, z2)
