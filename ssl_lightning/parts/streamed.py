"""Log-sum-exp over all dot products of unit vectors, block by block, so that the matrix of them is never held.

For unit vectors no similarity s is above 1, so everything here is of (s - 1) / t, which is never above 0: both
functions return log sum_j exp((a_i . c_j - 1) / t), and 1 / t more is the plain log-sum-exp. Each keeps one number per
row, and its backward pass makes the blocks again: a second product costs less than a large matrix sent to memory and
back.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core.forms import full_precision


def pairs_underflow(temperature: float, dtype: torch.dtype) -> bool:
    """Whether exp(-2 / t), the smallest possible sum, is too small for `dtype` (float32: t < 0.026).

    It must be a normal number, and so large that the gradient can be divided by it: hence the margin of e^10.
    """
    return -2 / temperature < math.log(torch.finfo(dtype).tiny) + 10


def logsumexp_pairs(z: Tensor, temperature: float) -> Tensor:
    """log sum_{j != i} exp((z_i . z_j - 1) / t) for unit rows: (N, P) -> (N,).

    Similarity is symmetric, so half the blocks are enough: each adds to the sums of its rows and of its columns.
    Not for temperatures at which `pairs_underflow`: there take `logsumexp_rows(z, z, temperature, own=0)`.
    """
    return _Pairs.apply(z, temperature)


def logsumexp_rows(a: Tensor, c: Tensor, temperature: float, own: int | None = None) -> Tensor:
    """log sum_j exp((a_i . c_j - 1) / t) for unit rows: (M, P), (N, P) -> (M,), at any temperature.

    With `own`, row i of `a` is row own + i of `c` and is left out of its own sum.
    """
    return _Rows.apply(a, c, temperature, own)


def _blocks(x: Tensor) -> list[slice]:
    """Rows in blocks whose square fits the cache of a CPU core, or fills a GPU."""
    size = 512 if x.device.type == "cpu" else 2048
    return [slice(start, min(start + size, len(x))) for start in range(0, len(x), size)]


class _Pairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float) -> Tensor:
        total = z.new_zeros(len(z))  # (N,)
        with full_precision(z):
            for i, j, e in _Pairs.upper_triangle(z, temperature):
                total[i] += e.sum(1)
                if i != j:
                    total[j] += e.sum(0)
        ctx.save_for_backward(z, total)
        ctx.temperature = temperature
        return total.log()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        z, total = ctx.saved_tensors
        weight = grad / (total * ctx.temperature)  # (N,): e_ij * weight_i is the gradient of row i by s_ij
        dz = torch.zeros_like(z)
        with full_precision(z):
            for i, j, e in _Pairs.upper_triangle(z, ctx.temperature):
                e *= weight[i, None] + weight[j]  # both roles of a pair: j among i's candidates, i among j's
                dz[i].addmm_(e, z[j])
                if i != j:
                    dz[j].addmm_(e.T, z[i])
        return dz, None

    @staticmethod
    def upper_triangle(z: Tensor, temperature: float) -> Iterator[tuple[slice, slice, Tensor]]:
        """exp((s - 1) / t) without the diagonal, as (rows, columns, block) with rows <= columns."""
        scaled = z / temperature
        blocks = _blocks(z)
        for n, i in enumerate(blocks):
            for j in blocks[n:]:
                e = (scaled[i] @ z[j].T).sub_(1 / temperature).exp_()
                if i == j:
                    e.fill_diagonal_(0)
                yield i, j, e


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, c: Tensor, temperature: float, own: int | None) -> Tensor:
        peak = a.new_full((len(a),), torch.finfo(a.dtype).min)  # finite, so that a row of -inf leaves it as it is
        total = a.new_zeros(len(a))  # (M,), of exp(logit - peak)
        with full_precision(a):
            for i, _, x in _Rows.logits(a, c, temperature, own):
                higher = torch.maximum(peak[i], x.amax(1))
                total[i] = total[i] * (peak[i] - higher).exp() + x.sub_(higher[:, None]).exp_().sum(1)
                peak[i] = higher
        result = peak + total.log()
        ctx.save_for_backward(a, c, result)
        ctx.temperature, ctx.own = temperature, own
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        a, c, result = ctx.saved_tensors
        da = torch.zeros_like(a) if ctx.needs_input_grad[0] else None
        dc = torch.zeros_like(c) if ctx.needs_input_grad[1] else None
        weight = grad / ctx.temperature  # (M,)
        with full_precision(a):
            for i, j, x in _Rows.logits(a, c, ctx.temperature, ctx.own):
                p = x.sub_(result[i, None]).exp_().mul_(weight[i, None])  # softmax over candidates, weighted
                if da is not None:
                    da[i].addmm_(p, c[j])
                if dc is not None:
                    dc[j].addmm_(p.T, a[i])
        return da, dc, None, None

    @staticmethod
    def logits(a: Tensor, c: Tensor, temperature: float, own: int | None) -> Iterator[tuple[slice, slice, Tensor]]:
        """(s - 1) / t as (rows, columns, block), -inf where a row meets its own copy."""
        scaled = a / temperature
        for i in _blocks(a):
            for j in _blocks(c):
                x = (scaled[i] @ c[j].T).sub_(1 / temperature)
                if own is not None:
                    x.diagonal(own + i.start - j.start).fill_(float("-inf"))
                yield i, j, x
