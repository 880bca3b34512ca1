"""Which items go into which batch: pure functions of (seed, epoch, rank), so that a run can be taken up anywhere."""

import hashlib
from collections.abc import Callable, Iterator, Sized
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError

Purpose = Literal["train", "evaluate", "fill"]
TRAIN: Purpose = "train"
EVALUATE: Purpose = "evaluate"
FILL: Purpose = "fill"  # fills up a rank: no item is asked for, and the batch becomes a blank one with label -1
NO_EPOCH = -1  # of what belongs to no epoch of training


def rows_of(items: Sized, indices: Tensor | None) -> Tensor:
    """The rows (N,) that are asked for; all of the set by default."""
    return torch.arange(len(items)) if indices is None else indices


class Request(NamedTuple):
    """What a loader is asked for: `rows` (B,) of the set, in an epoch, and what for."""

    epoch: int
    rows: Tensor
    purpose: Purpose = TRAIN


def hashed_seed(*parts: int | str) -> int:
    """A 63-bit seed from any numbers and words; near inputs give unrelated seeds."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(count: int, *seed_parts: int | str) -> Tensor:
    """A shuffle of 0..count-1 that depends on nothing but its arguments, (count,) int64."""
    generator = torch.Generator().manual_seed(hashed_seed(*seed_parts))
    return torch.randperm(count, generator=generator)


def start_of_run() -> tuple[int, int]:
    """Epoch 0, batch 0."""
    return 0, 0


class TrainSampler:
    """Shuffled batches of one epoch. Rank r of W takes the rows r::W of each global batch; the rest is dropped.

    Args:
        count: number of items.
        batch_size: items per batch and rank.
        seed: of the shuffle.
        rank, world_size: this process and how many there are.
        position: called when an epoch begins; says (epoch, batches of it already trained).
        noun: what an item is called in messages.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        position: Callable[[], tuple[int, int]] = start_of_run,
        noun: str = "item",
    ):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world_size, self.position = rank, world_size, position
        if not 0 < batch_size * world_size <= count:
            devices = f" on each of {world_size} devices" if world_size > 1 else ""
            most = count // world_size
            fix = (
                f"set data.batch_size to at most {most}" if most > 1 else f"set data.batch_size=1, or give more {noun}s"
            )
            if most < 1:
                fix = f"use fewer devices, or give more {noun}s"
            held = f"{count} training {noun}{'' if count == 1 else 's'}"
            raise UserError(f"a batch of {batch_size}{devices} does not fit {held}; {fix}")

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever this one starts."""
        return self.count // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[Request]:
        epoch, start = self.position()
        rows = permutation(self.count, "epoch", self.seed, epoch)
        size = self.batch_size * self.world_size
        for batch in range(start, len(self)):
            yield Request(epoch, rows[batch * size : (batch + 1) * size][self.rank :: self.world_size])


class EvalSampler:
    """Every wanted row once, in order; rank r of W takes the rows r::W, so ranks may differ by one row."""

    def __init__(self, indices: Tensor, batch_size: int, rank: int = 0, world_size: int = 1):
        self.indices, self.batch_size = indices[rank::world_size], batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        for rows in self.indices.split(self.batch_size) if len(self.indices) else ():
            yield Request(NO_EPOCH, rows, EVALUATE)


class DealtSampler(EvalSampler):
    """The batches of one process, dealt out: rank r of W takes the batches r::W.

    A network rounds a little differently in batches of another size or content. Here each item is in the very batch
    that one process has it in, so any number of ranks finds the same features to the last bit.

    Args:
        indices, batch_size, rank, world_size: as in `EvalSampler`.
        even: a rank with one batch less than others ends with one to fill up. Lightning's validation loop wants equally
            many batches on all ranks: it skips its hooks where there is none, and ranks that gather in them would wait
            for ever.
    """

    def __init__(self, indices: Tensor, batch_size: int, rank: int = 0, world_size: int = 1, even: bool = False):
        super().__init__(indices, batch_size)
        every = list(super().__iter__())
        self.requests: list[Request] = every[rank::world_size]
        if even and len(self.requests) * world_size < len(every):
            self.requests.append(Request(NO_EPOCH, indices[:0], FILL))

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)
