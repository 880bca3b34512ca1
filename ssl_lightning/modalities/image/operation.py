"""`Operation`: one more thing that is done to a view, listed in its `also`; how such operations are drawn and run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image import augment

MOST = 32  # operations of one view
STREAM = 100_000  # of the operations' draws: those of views and methods have smaller numbers


@dataclass(frozen=True)
class Operation:
    """What is done to a view with probability `p`, to a whole batch in one pass.

    A subclass says how many `numbers` it takes for an image, whether it is `geometric` (moves pixels: it then comes
    before the colours), and what it does, in `apply`. It draws nothing itself: so a view depends on neither its batch
    nor the number of processes.

    Attributes:
        p: how often it is done, 0 to 1.
    """

    p: float = 0.5

    geometric: ClassVar[bool] = False
    numbers: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise UserError(f"{type(self).__name__}'s p={self.p} is not a probability; give a number from 0 to 1")

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        """Float images (B, C, h, w) in [0, 1] and their `numbers` u (B, n), even in [0, 1): the same shape, in [0, 1].

        `x` is left as it is, and a row of the result depends on the same rows of `x` and `u` alone.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `apply`")

    def scaled(self, strength: float) -> Self:
        """The operation at another `views.strength`: itself, where it has no size (a flip)."""
        return self

    def _range(self, name: str, low: float = 0.0, high: float = math.inf) -> None:
        """Check a pair of bounds, and keep it as a tuple."""
        pair = tuple(float(value) for value in getattr(self, name))
        object.__setattr__(self, name, pair)  # a config brings lists
        if len(pair) != 2 or not low < pair[0] <= pair[1] <= high:
            top = "" if high == math.inf else f" and to {high:g}"
            raise UserError(
                f"{type(self).__name__}'s {name}={list(pair)} is not a range; give [low, high] above {low:g}{top}"
            )

    def _number(self, name: str, low: float, high: float) -> None:
        if not low <= getattr(self, name) <= high:
            value = getattr(self, name)
            raise UserError(f"{type(self).__name__}'s {name}={value} is out of range; give {low:g} to {high:g}")


def draw(operations: Sequence[Operation], place: int, seed: int, epoch: int, indices: Tensor) -> tuple[Tensor, ...]:
    """For each operation of the view at `place` its draws (B, 1 + numbers); the first one says whether it is done."""
    streams = (STREAM + MOST * place + k for k in range(len(operations)))
    return tuple(
        uniform(seed, epoch, indices, stream, 1 + op.numbers) for op, stream in zip(operations, streams, strict=True)
    )


def run(x: Tensor, operations: Sequence[Operation], drawn: Sequence[Tensor], geometric: bool) -> Tensor:
    """`x` (B, C, h, w) after those of a view's operations that are geometric, or after those that are not."""
    for op, u in zip(operations, drawn, strict=True):
        if op.geometric == geometric:
            x = augment.on_rows(x, u[:, 0] < op.p, op.apply, u[:, 1:])
    return x
