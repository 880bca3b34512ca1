"""LeJEPA: all views of an image meet at the mean of its global ones, and embeddings are held to an isotropic Gaussian.

Balestriero & LeCun 2025, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics",
https://arxiv.org/abs/2511.08544
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import widen
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.data.sampler import hashed_seed
from ssl_lightning.methods.base import SSLMethod, StepOutput


class LeJEPA(SSLMethod):
    """Equations 5 and 6 of the paper. No teacher, no stop-gradient, no predictor.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to embeddings (B, P), with `out_dim`.
        loss: how far embeddings are from a Gaussian along given directions, e.g. `SIGReg`.
        weight: lambda, share of that in the whole, in [0, 1]; 0.05 in the paper.
        directions: how many are drawn anew at each step.
        seed: of the directions.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    uses_local_views = True
    global_views = None

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        weight: float = 0.05,
        directions: int = 256,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        self.projector = projector(out_dim(backbone))
        if not 0 <= weight <= 1 or directions < 1:
            raise UserError(f"lejepa got weight={weight}, directions={directions}; give 0 to 1, and 1 or more")
        self.loss, self.weight = self.scoring(loss, "z", "directions"), weight
        self.directions = directions

    def random_directions(self, step: int, like: Tensor) -> Tensor:
        """Unit columns (P, M) for `like` (B, P): a function of seed and step, the same on all ranks and on resume."""
        generator = torch.Generator(like.device).manual_seed(hashed_seed("directions", self.seed, step))
        size = (like.shape[1], self.directions)
        return normalize(torch.randn(size, generator=generator, dtype=like.dtype, device=like.device), dim=0)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        features = self.features_of(batch.views)  # (B, D) each
        z = [widen(self.projector(f)) for f in features]  # (B, P) each
        first = slice(len(batch.global_views))
        center = torch.stack(z[first]).mean(0)  # (B, P)
        prediction = torch.stack([(z_v - center).square().mean() for z_v in z]).mean()
        directions = self.random_directions(self.global_step, center)  # (P, M)
        gaussian = torch.stack([self.loss(z_v, directions) for z_v in z]).mean()
        loss = (1 - self.weight) * prediction + self.weight * gaussian
        watch = {"prediction": prediction.detach(), "sig_reg": gaussian.detach()}
        return self.output(loss, torch.cat(features[:2]), *z[:2], **watch)
