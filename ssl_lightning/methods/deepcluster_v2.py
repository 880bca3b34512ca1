"""DeepCluster v2: cluster a memory of all images once an epoch, and learn to tell the clusters apart.

Caron et al. 2020, section 4 and appendix of "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", https://arxiv.org/abs/2006.09882
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.distributed import broadcast, gather_rows
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.data.sampler import hashed_seed
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.methods.plain import numbered
from ssl_lightning.parts.kmeans import spherical_kmeans

NOT_SEEN = -100  # the target that cross-entropy leaves out


class DeepClusterV2(SSLMethod):
    """The memory holds the newest projection of each image's two global views; centroids are the classifiers' weights.

    An image that has not been seen yet (in the incomplete last batch of an epoch, say) belongs to no cluster, and is
    not learned from until it does.

    Args:
        backbone: images of any size -> features (B, D), with `out_dim`.
        projector: called with D, gives the module from features to projections (B, P), with `out_dim`.
        memory_size: N, the number of images that are trained on.
        prototypes: K, clusters of each head.
        heads: how many clusterings stand beside each other; they take turns between the two views.
        temperature: t > 0 of the classifiers; 0.1 in the paper.
        iterations: of k-means.
        seed: of the images that k-means begins with.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    uses_local_views = True
    memory: Tensor
    centroids: Tensor
    assignments: Tensor
    seen: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        memory_size: int = 50000,
        prototypes: int = 3000,
        heads: int = 3,
        temperature: float = 0.1,
        iterations: int = 10,
        seed: int = 0,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **optim)
        if not 1 <= prototypes <= memory_size:
            raise UserError(f"{prototypes} prototypes for {memory_size} items; set method.prototypes")
        if heads < 1 or iterations < 1 or not temperature > 0:
            raise UserError(
                f"deepcluster_v2 got heads={heads}, iterations={iterations}, temperature={temperature}; "
                "give 1 or more of the first two, and a temperature above 0"
            )
        self.projector = projector(out_dim(backbone))
        dim = out_dim(self.projector)
        self.temperature, self.iterations = temperature, iterations
        self.register_buffer("memory", normalize(torch.randn(2, memory_size, dim), dim=2))
        self.register_buffer("centroids", normalize(torch.randn(heads, prototypes, dim), dim=2))
        self.register_buffer("assignments", torch.full((heads, memory_size), NOT_SEEN))
        self.register_buffer("seen", torch.zeros(memory_size, dtype=torch.bool))

    @torch.no_grad()
    def remember(self, indices: Tensor, *z: Tensor) -> None:
        """Writes the projections (B, P) of two views of the images (B,) of all ranks."""
        rows = gather_rows(indices, equal=True)
        self.seen[rows] = True
        for view, z_v in enumerate(z):
            self.memory[view, rows] = gather_rows(z_v, equal=True).to(self.memory.dtype)

    @torch.no_grad()
    def look(self, batch: Batch) -> None:
        """Remembers a batch without learning from it."""
        self.remember(batch.indices, *(normalize(self.projector(f)) for f in self.features_of(batch.views[:2])))

    def on_train_start(self) -> None:
        """A first pass over the images, so that the first epoch has something to cluster."""
        data, loader = self.trainer.datamodule, self.trainer.train_dataloader  # type: ignore[attr-defined]
        ours = hasattr(data, "train_set")
        images, room = len(data.train_set if ours else loader.dataset), self.memory.shape[1]  # type: ignore[union-attr]
        if images != room:
            raise UserError(f"the memory is for {room} images and there are {images}: set method.memory_size={images}")
        if self.seen.any():
            return
        batches = range(int(self.trainer.num_training_batches))
        for raw, number in zip(loader, batches):  # type: ignore[arg-type]
            if ours:
                batch = data.on_after_batch_transfer(data.transfer_batch_to_device(raw, self.device, 0))
            else:
                batch = self.batch_of(self.transfer_batch_to_device(raw, self.device, 0), number)
            self.look(batch)

    def batch_of(self, batch: Any, number: int) -> Batch:
        if not isinstance(batch, Batch) and not numbered(batch):
            fix = "give batches ([view, view], labels, indices)"
            raise UserError(f"DeepClusterV2 remembers each image by its number in the set; {fix}")
        return super().batch_of(batch, number)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Clusters at an epoch's first batch. (The hook of the epoch's start is not called where a run goes on from a
        checkpoint of an epoch's last batch.)"""
        if batch_idx == 0:
            self.cluster()

    def cluster(self) -> None:
        """k-means for each head, on rank 0's numbers: a sum on a GPU may differ in its last digits between ranks."""
        rows, count = self.seen.nonzero().squeeze(1), self.centroids.shape[1]
        if len(rows) < count:
            raise UserError(f"{len(rows)} images were seen for {count} prototypes; lower method.prototypes")
        for head in range(len(self.centroids)):
            generator = torch.Generator().manual_seed(hashed_seed("clusters", self.seed, self.current_epoch, head))
            found = spherical_kmeans(self.memory[head % 2, rows], count, self.iterations, generator)
            self.centroids[head], self.assignments[head, rows] = broadcast(found[0]), broadcast(found[1])

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        features = self.features_of(batch.views)  # (B, D) each
        z = [normalize(self.projector(f)) for f in features]  # (B, P) each
        targets = self.assignments[:, batch.indices].repeat(1, len(z))  # (H, VB)
        with full_precision(z[0]):
            logits = widen(torch.cat(z)) @ self.centroids.transpose(1, 2) / self.temperature  # (H, VB, K)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        self.remember(batch.indices, *(z_v.detach() for z_v in z[:2]))
        return self.output(loss, torch.cat(features[:2]), *z[:2])
