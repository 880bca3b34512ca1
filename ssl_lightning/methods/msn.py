"""MSN: assign an image with most patches dropped to the same prototypes as a slow teacher assigns another whole view.

Assran et al. 2022, "Masked Siamese Networks for Label-Efficient Learning", https://arxiv.org/abs/2204.07141
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim, token_encoder
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.token_pictures import attention_pictures
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.masking import hidden_count, random_places
from ssl_lightning.parts.teacher import Teacher


class MSN(SSLMethod):
    """Section 3 of the paper. The teacher sees the first view; anchors are the second, in part, and all small ones.

    Dropped patches do not enter the network: a step costs less the more there are. They are a function of seed, epoch
    and index. Judged and exported is the teacher.

    Args:
        backbone: a `TokenEncoder`, e.g. `ViT`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        loss: anchors (M, B, P), targets (B, P) and prototypes (K, P) to a scalar, e.g. `MSNLoss`.
        teacher: how the teacher follows.
        prototypes: K, how many; 1024 in the paper.
        mask_ratio: share of dropped patches, above 0 and below 1; in the paper 0.15 (ViT-S) to 0.7 (ViT-L).
        seed: of the masks.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    uses_local_views = True
    judged_by = "teacher.networks.0"
    not_decayed = ("prototypes",)  # their lengths do not count: decay would only change their rate

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        teacher: EMATeacher,
        prototypes: int = 1024,
        mask_ratio: float = 0.15,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        grid = token_encoder(backbone, "MSN").grid
        if prototypes < 2 or prod(grid) < 2 or not 0 < mask_ratio < 1:
            raise UserError(
                f"MSN got prototypes={prototypes}, mask_ratio={mask_ratio} and {' x '.join(map(str, grid))} "
                "patches; it takes 2 or more of the first, a ratio between 0 and 1, and patches smaller than the image"
            )
        self.projector = projector(out_dim(backbone))
        self.teacher = Teacher(teacher, backbone, self.projector)
        self.prototypes = nn.Parameter(torch.empty(prototypes, out_dim(self.projector)))
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)
        self.prototypes.no_decay = True  # type: ignore[attr-defined]  # what runs from before `not_decayed` go by
        self.loss = self.scoring(loss, "anchors", "targets", "prototypes")
        self.hidden = hidden_count(prod(grid), mask_ratio)

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        token_encoder(self.backbone).check_size(sizes[0], own=True)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        encoder = token_encoder(self.backbone)
        whole, masked = batch.global_views
        visible, _ = random_places(self.draw(batch, prod(encoder.grid)), self.hidden)
        seen = encoder.read(encoder.tokens(masked, visible))  # (B, D)
        features = [seen, *self.features_of(batch.local_views)]  # (B, D) each
        anchors = self.projector(torch.cat(features)).unflatten(0, (len(features), -1))  # (M, B, P)
        targets = self.teacher(whole)  # (B, P)
        return self.output(self.loss(anchors, targets, self.prototypes), seen, anchors[0], targets)

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Where the teacher's class token looks, and its patch tokens as colours."""
        return attention_pictures(self.judged, batch.views[0])
