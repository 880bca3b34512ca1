"""SwAV: cluster the batch while learning; each view predicts to which prototypes another view of its image belongs.

Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
https://arxiv.org/abs/2006.09882
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.distributed import rank, world_size
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.parts.queue import Queue
from ssl_lightning.parts.sinkhorn import sinkhorn


class SwAV(SSLMethod):
    """Algorithm 1 of the paper, with its queue, for two global views and any number of local ones.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        loss: scores the views' scores against the global views' codes, e.g. `SwAVLoss`.
        prototypes: K, how many.
        epsilon, iterations: of Sinkhorn-Knopp; 0.05 and 3 in the paper.
        queue_size: past projections per global view that help to spread the codes; 0 for none.
        queue_epoch: the first epoch (from 0) in which the queue is used; it is filled from the start.
        frozen_epochs: epochs in which the prototypes do not learn.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    uses_local_views = True

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor],
        prototypes: int = 3000,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue_size: int = 0,
        queue_epoch: int = 15,
        frozen_epochs: int = 1,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        if not epsilon > 0 or min(iterations, prototypes) < 1 or queue_size < 0:
            raise UserError(
                f"swav got epsilon={epsilon}, iterations={iterations}, prototypes={prototypes} and "
                f"queue_size={queue_size}; epsilon must be above 0, iterations and prototypes 1 or more, "
                "queue_size 0 or more"
            )
        self.projector = projector(out_dim(backbone))
        dim = out_dim(self.projector)
        self.prototypes = nn.Linear(dim, prototypes, bias=False)
        self.loss = self.scoring(loss, "scores", "codes")
        self.epsilon, self.iterations = epsilon, iterations
        self.queues = nn.ModuleList(Queue(queue_size, dim) for _ in range(2 if queue_size else 0))
        self.queue_epoch, self.frozen_epochs = queue_epoch, frozen_epochs

    def score(self, z: Tensor) -> Tensor:
        """Cosines with the prototypes (B, K); a twentieth of them is what decides a code, too fine for bfloat16."""
        with full_precision(z):
            return self.prototypes(z.to(self.prototypes.weight.dtype))

    @torch.no_grad()
    def codes(self, view: int, scores: Tensor) -> Tensor:
        """Soft assignments (B, K) of one global view; the queue's share of this rank is assigned along with it."""
        if self.queues and self.current_epoch >= self.queue_epoch:
            past = self.queues[view].vectors.tensor_split(world_size())[rank()]  # type: ignore[union-attr, operator]
            scores = torch.cat([scores, self.score(past)])
        return sinkhorn(scores, self.epsilon, self.iterations)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        with torch.no_grad():
            self.prototypes.weight.copy_(normalize(self.prototypes.weight))
        features = self.features_of(batch.views)  # (B, D) each
        z = [normalize(widen(self.projector(f))) for f in features]  # (B, P) each
        scores = [self.score(z_v) for z_v in z]  # (B, K) each
        codes = [self.codes(v, scores[v].detach())[: len(z[v])] for v in range(2)]
        for queue, z_v in zip(self.queues, z):
            queue.push(z_v.detach())  # type: ignore[operator]
        usage = codes[0].mean(0)  # (K,)
        entropy = -(usage * usage.clamp_min(1e-12).log()).sum()
        return self.output(self.loss(scores, codes), torch.cat(features[:2]), *z[:2], prototype_entropy=entropy)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.current_epoch < self.frozen_epochs:
            self.prototypes.weight.grad = None
