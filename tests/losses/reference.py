"""The papers' equations as plain loops in float64: slow, and easy to hold against the page."""

from collections.abc import Callable

import torch
from torch import Tensor


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt())


def nt_xent(z1: Tensor, z2: Tensor, t: float) -> Tensor:
    """SimCLR, eq. 1 and algorithm 1: views 2k-1 and 2k of image k are partners."""
    views = [view for pair in zip(z1, z2, strict=True) for view in pair]
    total = torch.zeros((), dtype=z1.dtype)
    for i, anchor in enumerate(views):
        partner = i + 1 if i % 2 == 0 else i - 1
        denominator = sum((cos(anchor, view) / t).exp() for k, view in enumerate(views) if k != i)
        total = total - ((cos(anchor, views[partner]) / t).exp() / denominator).log()
    return total / len(views)


def info_nce(q: Tensor, k: Tensor, negatives: Tensor | None, t: float) -> Tensor:
    """MoCo, eq. 1, averaged over queries. Without negatives: the other keys, as in MoCo v3."""
    total = torch.zeros((), dtype=q.dtype)
    for i in range(len(q)):
        others = negatives if negatives is not None else [key for j, key in enumerate(k) if j != i]
        positive = (cos(q[i], k[i]) / t).exp()
        total = total - (positive / (positive + sum((cos(q[i], other) / t).exp() for other in others))).log()
    return total / len(q)


def byol(p: Tensor, t: Tensor) -> Tensor:
    """BYOL, eq. 2: the squared distance between unit vectors."""
    total = torch.zeros((), dtype=p.dtype)
    for a, b in zip(p, t.detach(), strict=True):
        total = total + (a / a.norm() - b / b.norm()).pow(2).sum()
    return total / len(p)


def value_and_grads(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """[loss, gradient by each input] on fresh leaves."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def assert_close(seen: list[Tensor], expected: list[Tensor], atol: float) -> None:
    for a, b in zip(seen, expected, strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), atol=atol, rtol=0)
