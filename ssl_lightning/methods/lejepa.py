"""LeJEPA: all views of an image meet at the mean of its global ones, and embeddings are held to an isotropic Gaussian.

Balestriero & LeCun 2025, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics",
https://arxiv.org/abs/2511.08544
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.data.batch import Batch
from ssl_lightning.methods.base import SSLMethod, StepOutput


class LeJEPA(SSLMethod):
    """Equations 5 and 6 of the paper. No teacher, no stop-gradient, no predictor.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to embeddings (B, P), with `out_dim`.
        loss: how far embeddings are from a Gaussian along given directions, e.g. `SIGReg`.
        weight: lambda, share of that in the whole, in [0, 1]; 0.05 in the paper.
        directions: how many are drawn anew at each step.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    uses_local_views = True
    steps: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        weight: float = 0.05,
        directions: int = 256,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        self.projector = projector(int(backbone.out_dim))  # type: ignore[arg-type]
        self.loss, self.weight, self.directions = loss, weight, directions
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def draw(self, dim: int, like: Tensor) -> Tensor:
        """Unit columns (dim, M): a function of the step alone, so that all ranks and a resumed run draw the same."""
        generator = torch.Generator().manual_seed(int(self.steps))
        self.steps += 1
        return normalize(torch.randn(dim, self.directions, generator=generator), dim=0).to(like)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        features = self.features_of(batch.views)  # (B, D) each
        z = [self.projector(f) for f in features]  # (B, P) each
        first = slice(len(batch.global_views))
        center = torch.stack(z[first]).mean(0)  # (B, P)
        prediction = torch.stack([(z_v - center).square().mean() for z_v in z]).mean()
        directions = self.draw(center.shape[1], center)
        gaussian = torch.stack([self.loss(z_v, directions) for z_v in z]).mean()
        loss = (1 - self.weight) * prediction + self.weight * gaussian
        watch = {"prediction": prediction.detach(), "sig_reg": gaussian.detach()}
        return self.output(loss, torch.cat(features[first]), *z[first], **watch)
