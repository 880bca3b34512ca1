"""Talk between ranks: who am I, gather with gradient, broadcast. Each call is a no-op in one process.

Why `gather` keeps the gradient: a loss on the global batch depends on every rank's rows, so each rank's rows are owed
the gradient of every rank's loss. DDP then averages over ranks, so a loss that each rank computes on the whole gathered
batch, or a mean whose parts the ranks share out, gets exactly the gradient that one process would get on that batch.
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor


def is_active() -> bool:
    """True inside a process group of two or more ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process' rank, 0 in one process."""
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    """The number of processes, 1 in one process."""
    return dist.get_world_size() if is_active() else 1


def is_main() -> bool:
    """True on the one rank that writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank is here."""
    if is_active():
        dist.barrier()


def broadcast_object(obj: Any) -> Any:
    """Rank 0's `obj` (anything that pickles) on every rank."""
    if not is_active():
        return obj
    box = [obj if is_main() else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(obj: Any) -> list[Any]:
    """Every rank's `obj` (anything that pickles), in rank order, on every rank."""
    if not is_active():
        return [obj]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, obj)
    return found


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks in rank order, with gradient, for a loss of one's own.

    Backward sums the gradient over ranks and returns this rank's rows of it, so every rank must run the backward pass
    (as DDP does anyway).

    Args:
        x: (B, ...), of the same B on every rank.

    Returns:
        (W*B, ...) on every rank, of W ranks; `x` itself in one process.

    >>> gather(torch.zeros(2, 3)).shape  # one process
    torch.Size([2, 3])
    """
    return _Gather.apply(x) if is_active() else x


def broadcast(x: Tensor) -> Tensor:
    """Rank 0's values, written into `x` on every rank; returns it."""
    if is_active():
        dist.broadcast(x, src=0)
    return x


def reduce(x: Tensor, how: Literal["sum", "max"] = "sum") -> Tensor:
    """The sum or maximum over ranks, without gradient, written into `x`; returns it."""
    if is_active():
        dist.all_reduce(x, dist.ReduceOp.SUM if how == "sum" else dist.ReduceOp.MAX)
    return x


def gather_rows(x: Tensor, equal: bool = False) -> Tensor:
    """The rows of all ranks in rank order, without gradient; ranks may hold different numbers of rows, or none.

    (B_r, ...) on rank r -> (sum of B_r, ...) on every rank, on the device of `x`. Shapes after the first dimension and
    dtypes must agree. With `equal` all ranks hold the same number, as training batches do, and none needs to ask.
    """
    x = x.detach()
    if not is_active():
        return x
    if x.device.type == "cpu" and dist.get_backend() == "nccl":  # which carries tensors of the GPU only
        return gather_rows(x.cuda(), equal).cpu()
    if equal:
        return _all_gather(x)
    count = torch.tensor([x.shape[0]], device=x.device)
    counts = _all_gather(count).tolist()
    longest = max(counts)
    padded = x.new_zeros((longest, *x.shape[1:]))  # collectives need equal shapes: pad, gather, cut
    padded[: x.shape[0]] = x
    parts = _all_gather(padded).split(longest) if longest else [padded] * len(counts)
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])


def _all_gather(x: Tensor) -> Tensor:
    """(B, ...) equal on all ranks -> (W*B, ...), no gradient."""
    out = x.new_empty((world_size() * x.shape[0], *x.shape[1:]))
    dist.all_gather_into_tensor(out, x.contiguous())
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()  # all_reduce works in place, and autograd may still own this one
        dist.all_reduce(grad)
        start = rank() * ctx.rows
        return grad[start : start + ctx.rows]
