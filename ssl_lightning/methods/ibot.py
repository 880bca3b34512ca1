"""iBOT: DINO on the class token, and the same on patches, of which the student sees only those that are not hidden.

Zhou et al. 2022, "iBOT: Image BERT Pre-Training with Online Tokenizer", https://arxiv.org/abs/2111.07832. With heads of
their own, Sinkhorn-Knopp and KoLeo it is DINOv2: Oquab et al. 2023, https://arxiv.org/abs/2304.07193.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch, concat
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import centering, out_dim, projecting_head, prototype_head, token_encoder
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.token_pictures import attention_pictures
from ssl_lightning.optim.schedules import ramp
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.masking import BLOCK_DRAWS, block_mask
from ssl_lightning.parts.teacher import Teacher


class IBOT(SSLMethod):
    """Algorithm 1 of iBOT with multi-crop, or section 4 of DINOv2. Judged and exported is the teacher.

    Some global views of the student have patches hidden in blocks, as functions of seed, epoch, index and view. The
    patches' centre is that of the hidden ones, as in DINOv2's code (iBOT's takes all).

    Args:
        backbone: a `TokenEncoder` with a class token, e.g. `ViT`.
        projector: called with the tokens' width, gives the module from tokens to scores (B, K), with `out_dim` = K,
            `project` and `forget_last_gradient`, e.g. `DINOHead`.
        patch_projector: the same for patches (DINOv2); None for one head for both (iBOT).
        center: called with K, gives what keeps the teacher's answers apart: `Center` (iBOT), `SinkhornCenter` (DINOv2).
        loss, patch_loss: score class tokens and patches, e.g. `DINOLoss` and `MaskedPatchLoss`.
        spread: scores the class tokens (B, D) of one global view, e.g. `KoLeo`; None for none.
        spread_weight: 0.1 in DINOv2.
        teacher: how the teacher follows.
        teacher_temperature, warmup_teacher_temperature, warmup_epochs: the teacher's temperature rises along a straight
            line from the second to the first in so many epochs.
        mask_probability, mask_ratio: how likely a view has hidden patches, and the share of them, drawn between two.
        frozen_epochs: epochs in which the prototypes do not learn.
        seed: of the masks.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    uses_local_views = True
    judged_by = "teacher.networks.0"
    decayed = ("mask_token", "projector.scale", "patch_projector.scale")  # matrices in the authors' code

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        center: Callable[[int], nn.Module],
        loss: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor],
        patch_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        teacher: EMATeacher,
        patch_projector: Callable[[int], nn.Module] | None = None,
        spread: Callable[[Tensor], Tensor] | None = None,
        spread_weight: float = 0.1,
        teacher_temperature: float = 0.07,
        warmup_teacher_temperature: float = 0.04,
        warmup_epochs: float = 30,
        mask_probability: float = 0.5,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        frozen_epochs: int = 1,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        encoder = token_encoder(backbone, "iBOT")
        if not encoder.has_class_token:
            raise UserError("iBOT learns from the class token; set backbone.class_token=true")
        self.grid, width = encoder.grid, encoder.token_dim
        if prod(self.grid) < 2:
            raise UserError("iBOT hides some patches and shows others; take patches smaller than the image")
        if not min(teacher_temperature, warmup_teacher_temperature) > 0:
            raise UserError("the teacher temperatures must be above 0; the papers have 0.04 to 0.07")
        if not (0 <= mask_probability <= 1 and 0 < mask_ratio[0] <= mask_ratio[1] < 1):
            raise UserError(
                f"mask_probability={mask_probability} must lie in 0 to 1, mask_ratio={list(mask_ratio)} between 0 and 1"
            )
        self.projector = projector(width)
        self.patch_projector = None if patch_projector is None else patch_projector(width)
        of_patches = [] if self.patch_projector is None else [self.patch_projector]
        self.teacher = Teacher(teacher, backbone, self.projector, *of_patches)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.center = center(out_dim(self.projector))
        self.patch_center = center(out_dim(self.patch_projector or self.projector))
        self.loss = self.scoring(loss, "scores", "targets")
        self.patch_loss = self.scoring(patch_loss, "scores", "targets", "mask")
        self.spread, self.spread_weight = spread, spread_weight
        self.temperatures = (warmup_teacher_temperature, teacher_temperature, warmup_epochs)
        self.mask_probability, self.mask_ratio = mask_probability, mask_ratio
        self.frozen_epochs = frozen_epochs

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        token_encoder(self.backbone).check_size(sizes[0], own=True)

    def mask(self, batch: Batch) -> Tensor:
        """(2B, N) bool over the patches of both global views, True = hidden."""
        patches = prod(self.grid)
        masks = []
        for view in range(2):
            draw = self.draw(batch, 2 + BLOCK_DRAWS + patches, stream=view)
            low, high = self.mask_ratio
            hidden = ((low + draw[:, 1] * (high - low)) * patches).long().clamp(1, patches - 1)  # (B,)
            hidden = torch.where(draw[:, 0] < self.mask_probability, hidden, 0)
            masks.append(block_mask(self.grid, hidden, draw[:, 2:]))
        return torch.cat(masks)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        encoder = token_encoder(self.backbone)
        x, mask = concat(batch.global_views), self.mask(batch)  # (2B, N)
        tokens = encoder.tokens(x, hidden=mask, mask_token=self.mask_token)
        prefix, patches = encoder.split(tokens)
        local = self.features_of(batch.local_views, lambda view: encoder.tokens(view)[:, 0])
        classes = [*prefix[:, 0].chunk(2), *local]  # (B, D) each, global views first
        scores = self.projector(torch.cat(classes)).chunk(len(classes))  # (B, K) each
        patch_scores = (self.patch_projector or self.projector)(patches[mask])  # (R, K)
        answers, patch_answers, temperature = self.answers(x, mask)
        loss = self.loss(scores, answers.chunk(2)) + self.patch_loss(patch_scores, patch_answers, mask)
        if self.spread is not None:
            loss = loss + self.spread_weight * sum(self.spread(view) for view in classes[:2])
        entropy = -(answers * answers.clamp_min(1e-12).log()).sum(1).mean()
        with torch.no_grad():
            z = projecting_head(self.projector).project(torch.cat(classes[:2])).chunk(2)  # (B, P) each
        seen = encoder.read(tokens)  # (2B, D)
        return self.output(loss, seen, *z, teacher_entropy=entropy, teacher_temperature=temperature)

    @torch.no_grad()
    def answers(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, float]:
        """The teacher's, who sees the whole views: (2B, K) of class tokens, (R, K) of what is hidden; temperature."""
        network, *heads = self.teacher.networks
        encoder = token_encoder(network)
        tokens = encoder.tokens(x)
        scores = heads[0](tokens[:, 0]), heads[-1](encoder.split(tokens)[1][mask])
        start, end, epochs = self.temperatures
        temperature = ramp(start, end, self.current_epoch, epochs)
        found = []
        centers = centering(self.center), centering(self.patch_center)
        for center, score in zip(centers, scores, strict=True):
            found.append(center.sharpen(score, temperature))
            center.update(score)
        return found[0], found[1], temperature

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.current_epoch < self.frozen_epochs:
            for head in filter(None, (self.projector, self.patch_projector)):
                prototype_head(head).forget_last_gradient()

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Where the teacher's class token looks, and its patch tokens as colours."""
        return attention_pictures(self.judged, batch.views[0])
