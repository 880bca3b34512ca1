"""What a pickle may grow to as it is read: a few kilobytes of steps can ask for gigabytes.

The steps are counted, and what is copied is paid for: honest files hold what they build, written out once. Values that
are shared stay shared, but are counted as often as they stand somewhere: who walks through them meets each place.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar

MOST_STEPS = 5_000_000  # of a pickle; a tensor takes about 40
MOST_COPIED = 1_000_000  # values, beside twice as many as the file has bytes
MOST_REPEATED = 2**26  # numbers of tensors that are larger than their bytes, together
MOST_VALUES, DEEPEST = 5_000_000, 100  # of what was read, each value counted where it stands
PLAIN = (list, tuple, dict, set, frozenset)

PYTHONS: Any = vars(pickle)["_Unpickler"]  # the reader in Python, whose steps can be counted and replaced


class TooMuch(pickle.UnpicklingError):
    """The file stands for far more than it holds. Says what is too much."""


class Allowance:
    """What a file of `size` bytes may still use up."""

    def __init__(self, size: int) -> None:
        self.steps, self.copied, self.repeated = MOST_STEPS, MOST_COPIED + 2 * size, MOST_REPEATED

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise TooMuch("is too long to be weights")

    def copy(self, *values: Any) -> None:
        """Pay for values that are copied: as many as they hold."""
        self.copied -= sum(len(value) for value in values if isinstance(value, (*PLAIN, str, bytes, bytearray)))
        if self.copied < 0:
            raise TooMuch("copies its values again and again, which would fill the memory")

    def repeat(self, numbers: int, held: int) -> None:
        """Pay for a tensor of more numbers than the file holds for it."""
        self.repeated -= numbers if numbers > held else 0
        if self.repeated < 0:
            raise TooMuch("holds tensors that are larger than their bytes")


class _File:
    """A file of which no more is asked for than it holds: a text in it may say that it is as long as the memory."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size, self.readline = file, size, file.readline

    def read(self, count: int) -> bytes:
        if count > self.size:
            raise EOFError
        return self.file.read(count)


class _Counted:
    """Steps of a reader, each of which is counted when it is looked up."""

    def __init__(self, steps: Mapping[int, Callable[..., None]], allowance: Allowance) -> None:
        self.steps, self.allowance = steps, allowance

    def __getitem__(self, key: int) -> Callable[..., None]:
        self.allowance.step()
        return self.steps[key]


class _Memo(dict[int, Any]):
    """Values by numbers that are no larger than a pickle is long: other readers make a list of that length."""

    def __setitem__(self, number: int, value: Any) -> None:
        if number > MOST_STEPS:
            raise TooMuch("numbers its values without measure")
        super().__setitem__(number, value)


class Bounded(PYTHONS):  # type: ignore[misc]
    """Python's own reader of pickles, with its steps counted."""

    steps: ClassVar[dict[int, Callable[..., None]]] = dict(PYTHONS.dispatch)

    def __init__(self, file: IO[bytes], size: int, allowance: Allowance | None = None, **kwargs: Any) -> None:
        super().__init__(_File(file, size), **kwargs)
        self.allowance = allowance or Allowance(size)
        self.dispatch = _Counted(self.steps, self.allowance)
        self.memo = _Memo()


def check_amount(content: Any) -> None:
    """Raise `TooMuch` for containers that lie too deep in one another, or stand for too many values."""
    known: dict[int, tuple[int, int] | None] = {}

    def measured(value: Any, depth: int) -> tuple[int, int]:
        """(how many values, how deep), each container walked through once."""
        if not isinstance(value, PLAIN):
            return 1, 0
        if id(value) not in known:
            known[id(value)] = None
            inner = value.values() if isinstance(value, dict) else value
            parts = [measured(item, depth + 1) for item in inner] if depth < DEEPEST else [(0, DEEPEST)]
            known[id(value)] = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
        found = known[id(value)]  # None inside of itself
        if found is None or found[0] > MOST_VALUES or depth + found[1] > DEEPEST:
            raise TooMuch("is nested too deeply or too long")
        return found

    measured(content, 0)
