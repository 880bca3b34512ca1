"""Spherical k-means, as DeepCluster v2 clusters its memory: https://arxiv.org/abs/2006.09882, appendix."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

CHUNK = 8192  # rows whose similarities are held at once


@torch.no_grad()
def assign(x: Tensor, centroids: Tensor) -> Tensor:
    """The most similar centroid (N,) of each row of x (N, P), by dot product with centroids (K, P)."""
    return torch.cat([(rows @ centroids.T).argmax(1) for rows in x.split(CHUNK)])


@torch.no_grad()
def spherical_kmeans(x: Tensor, count: int, iterations: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clusters unit rows (N, P), N >= count: unit centroids (count, P) and the assignment (N,) to them.

    It begins with rows drawn by `generator` (on the CPU); a cluster that loses all its rows keeps its centroid.
    """
    centroids = x[torch.randperm(len(x), generator=generator)[:count].to(x.device)]
    for _ in range(iterations):
        nearest = assign(x, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, x)
        kept = nearest.bincount(minlength=count) > 0
        centroids = torch.where(kept[:, None], normalize(sums), centroids)
    return centroids, assign(x, centroids)
