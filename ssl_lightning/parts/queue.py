"""The queue of past vectors that MoCo brought to the field: https://arxiv.org/abs/1911.05722"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.distributed import gather_rows
from ssl_lightning.core.errors import UserError


class Queue(nn.Module):
    """The last `size` unit vectors of all ranks, the same on every rank; part of the checkpoint.

    It begins with random directions, as in MoCo's code, until real vectors have filled it.

    Args:
        size: K, how many vectors it holds.
        dim: P, their length.
    """

    vectors: Tensor  # (K, P)
    pointer: Tensor  # (), where the oldest vector is

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"queue_size is {size}; give 1 or more")
        self.register_buffer("vectors", normalize(torch.randn(size, dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def snapshot(self) -> Tensor:
        """(K, P) as it is now: a backward pass still needs it when the queue has moved on."""
        return self.vectors.clone()

    @torch.no_grad()
    def push(self, vectors: Tensor) -> None:
        """Writes the vectors (B, P) of all ranks over the oldest ones; of more than K the last K stay."""
        size = len(self.vectors)
        new = gather_rows(vectors, equal=True)[-size:].to(self.vectors.dtype)  # (W*B, P)
        slots = (self.pointer + torch.arange(len(new), device=new.device)) % size
        self.vectors[slots] = new
        self.pointer.copy_((self.pointer + len(new)) % size)
