"""How good features are, without labels: rank, alignment, uniformity, spread.

RankMe: Garrido et al. 2023, https://arxiv.org/abs/2210.02885. Effective rank: Roy & Vetterli 2007,
https://www.eurasip.org/Proceedings/Eusipco/Eusipco2007/Papers/a5p-h05.pdf. Alignment and uniformity: Wang & Isola
2020, https://arxiv.org/abs/2005.10242. Spread: Chen & He 2020 (SimSiam), https://arxiv.org/abs/2011.10566.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BOUND_TEMPERATURES = (0.03, 0.1, 0.3, 1.0)


def rankme(x: Tensor, eps: float = 1e-7) -> float:
    """exp of the entropy of the singular values of x (N, D), as shares of their sum: from 1 to min(N, D)."""
    x = _double(x)
    # The eigenvalues of the smaller Gram matrix are the squared singular values, and far cheaper than an SVD.
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    return _exp_entropy(torch.linalg.eigvalsh(gram).clamp(min=0).sqrt(), eps)


def effective_rank(x: Tensor) -> float:
    """exp of the entropy of the eigenvalues of the covariance of x (N, D), as shares of their sum: from 1 to D.

    It differs from `rankme` in that the mean is taken off and that large directions weigh more (variances, not
    standard deviations). Features that are all the same have rank 1.
    """
    x = _double(x)
    x = x - x.mean(dim=0)
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    return _exp_entropy(torch.linalg.eigvalsh(gram).clamp(min=0))


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> float:
    """Mean distance, to the power alpha, of the normalised features of positive pairs (N, D), (N, D): 0 is best."""
    x, y = F.normalize(_double(x), dim=1), F.normalize(_double(y), dim=1)
    return (x - y).norm(dim=1).pow(alpha).mean().item()


def pair_statistics(x: Tensor, y: Tensor) -> dict[str, float]:
    """What contrastive theory reasons with, from embeddings (N, P), (N, P) of two views of the same N images, N > 1.

    - positive_similarity, negative_similarity: mean cosine of an image's two views, and of views of different images;
    - positive_top1: how often the other view of an image is the nearest of all N;
    - mutual_information: a lower bound in nats, log N - InfoNCE (van den Oord et al. 2018, eq. 5,
      https://arxiv.org/abs/1807.03748), the highest over temperatures; no N images can show more than log N.
    """
    cosines = F.normalize(_double(x), dim=1) @ F.normalize(_double(y), dim=1).T  # (N, N)
    count = len(cosines)
    positive, own = cosines.diagonal(), torch.arange(count, device=cosines.device)
    losses = [F.cross_entropy(cosines / t, own) for t in BOUND_TEMPERATURES]
    return {
        "positive_similarity": positive.mean().item(),
        "negative_similarity": ((cosines.sum() - positive.sum()) / (count * (count - 1))).item(),
        "positive_top1": (cosines.argmax(1) == own).double().mean().item(),
        "mutual_information": math.log(count) - min(losses).item(),
    }


def uniformity(x: Tensor, t: float = 2.0, max_rows: int = 10_000, chunk: int = 1024, seed: int = 0) -> float:
    """log of the mean over all pairs of different rows of exp(-t |x_i - x_j|^2), rows of x (N, D) normalised.

    Between -4t and 0; lower is more uniform. Of more than `max_rows` rows a random subset of that many is taken, which
    follows from `seed`. No more than `chunk` x `chunk` similarities are held at a time.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(x) < 2:
        raise ValueError(f"uniformity needs two rows or more, not {len(x)}")
    if len(x) > max_rows:
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:max_rows].to(x.device)]
    blocks = F.normalize(_double(x), dim=1).split(chunk)
    total = 0.0
    for i, rows in enumerate(blocks):
        for j, others in enumerate(blocks[i:], start=i):
            kernel = (2 * t * (rows @ others.T - 1)).exp()  # |a - b|^2 = 2 - 2 a.b for unit vectors
            total += (kernel.triu(diagonal=1) if i == j else kernel).sum().item()
    pairs = len(x) * (len(x) - 1) / 2
    return float(torch.tensor(total / pairs, dtype=torch.float64).log())


def feature_std(x: Tensor) -> float:
    """Mean over dimensions of the standard deviation of the normalised rows of x (N, D), times sqrt(D).

    0 where all rows point the same way (collapse), about 1 where they point everywhere alike.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(x) < 2:
        raise ValueError(f"feature_std needs two rows or more, not {len(x)}")
    x = F.normalize(_double(x), dim=1)
    return x.std(dim=0).mean().item() * x.shape[1] ** 0.5


def _double(x: Tensor) -> Tensor:
    """float64; on the CPU where the device has none (Apple's)."""
    return x.detach().cpu().double() if x.device.type == "mps" else x.detach().double()


def _exp_entropy(values: Tensor, eps: float = 0.0) -> float:
    total = values.sum()
    return torch.special.entr(values / total + eps).sum().exp().item() if total > 0 else 1.0
