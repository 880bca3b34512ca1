"""DenseCL: contrast of whole images as in MoCo v2, and beside it of the places of their feature maps.

Wang et al. 2021, "Dense Contrastive Learning for Self-Supervised Visual Pre-Training", https://arxiv.org/abs/2011.09157
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen
from ssl_lightning.core.protocols import map_encoder, out_dim, per_axis
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.channels import in_channels
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.parts.queue import Queue
from ssl_lightning.parts.teacher import Teacher


class FeatureMap(nn.Module):
    """A backbone's features before the mean over places: (B, C, ...) -> (B, D, *places)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return map_encoder(self.backbone).feature_map(x)


class DenseHead(nn.Module):
    """The two projectors of section 3.2: (B, D, h, w) -> one projection (B, P), and one for each place (B, S, P)."""

    def __init__(self, projector: nn.Module, dense_projector: nn.Module) -> None:
        super().__init__()
        self.projector, self.dense_projector = projector, dense_projector

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        places = features.flatten(2).transpose(1, 2)  # (B, S, D)
        return self.projector(places.mean(1)), self.dense_projector(places)


def match(features: Tensor, other: Tensor) -> Tensor:
    """For each place of `features` (B, D, h, w) the most similar place of `other`, by cosine: (B, S) in 0 .. S - 1."""
    with full_precision(features):
        a, b = (normalize(widen(x).flatten(2), dim=1) for x in (features, other))  # (B, D, S)
        return (a.transpose(1, 2) @ b).argmax(2)


def mean_of(places: Tensor) -> Tensor:
    """The mean of a map (B, D, *places): (B, D)."""
    return places.mean(tuple(range(2, places.ndim)))


class DenseCL(SSLMethod):
    """Section 3 of the paper: eq. 1 of whole images plus eq. 2 of places, each with a queue of its own.

    Args:
        backbone: a `MapEncoder`, or a network with `forward_features` -> (B, D, h, w), as the ResNets, `ConvNetSmall`
            and timm's convolutional networks have it. Its features are the mean of that map.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        dense_projector: the same for each place, layer by layer a 1x1 convolution, without BatchNorm.
        loss: scores queries, their keys and a queue, e.g. `InfoNCE`.
        teacher: how the key networks follow; the paper holds momentum at 0.999.
        queue_size: K, of each queue.
        weight: lambda, share of the dense loss; 0.5 in the paper.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        dense_projector: Callable[[int], nn.Module],
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        teacher: EMATeacher,
        queue_size: int = 65536,
        weight: float = 0.5,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        map_encoder(backbone, "DenseCL")
        dim = out_dim(backbone)
        head = DenseHead(projector(dim), dense_projector(dim))
        self.head = head
        self.teacher = Teacher(teacher, FeatureMap(backbone), head)
        self.loss, self.weight = self.scoring(loss, "q", "k", "queue"), weight
        self.queue = Queue(queue_size, out_dim(head.projector))
        self.dense_queue = Queue(queue_size, out_dim(head.dense_projector))

    @torch.no_grad()
    def check_views(self, sizes: Sequence[int]) -> None:
        """Also refuses a backbone whose features are not the mean of a feature map: a ViT, or one with more layers."""
        super().check_views(sizes)
        net = copy.deepcopy(self.backbone).eval()
        encoder = map_encoder(net, "DenseCL")
        size = per_axis(sizes[0], len(encoder.strides))
        x = torch.randn(2, in_channels(net), *size).to(next(net.parameters()))
        mean, features = mean_of(encoder.feature_map(x)), encoder(x)
        if mean.shape != features.shape or not torch.allclose(mean, features, rtol=1e-3, atol=1e-4):
            fix = "choose a ResNet or convnet_small"
            raise UserError(f"densecl needs a backbone whose features are the mean of its feature map; {fix}")

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        x1, x2 = batch.global_views
        features = map_encoder(self.backbone).feature_map(x1)  # (B, D, h, w)
        q, dense_q = self.head(features)  # (B, P), (B, S, P)
        other, (k, dense_k) = self.teacher.states(x2)  # (B, D, h, w), as above
        place = match(features.detach(), other)  # (B, S)
        matched = dense_k.gather(1, place[..., None].expand_as(dense_k))  # (B, S, P)
        whole = self.loss(q, k, self.queue.snapshot())
        dense = self.loss(dense_q.flatten(0, 1), matched.flatten(0, 1), self.dense_queue.snapshot())
        self.queue.push(normalize(k))
        self.dense_queue.push(normalize(dense_k.mean(1)))
        loss = (1 - self.weight) * whole + self.weight * dense
        return self.output(loss, mean_of(features), q, k, dense=dense.detach())
