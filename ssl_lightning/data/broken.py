"""Files that cannot be decoded are skipped, counted and reported; too many of them stop the run."""

import sys
from collections.abc import Iterable

from torch import Tensor

from ssl_lightning.core import distributed
from ssl_lightning.core.errors import UserError, plain
from ssl_lightning.core.words import counted as counted

BROKEN_LIMIT = 0.01  # share of a whole set's files that may be broken; one may be in any case


def say(message: str) -> None:
    """One line to the user, from the first process only."""
    if distributed.is_main():
        print(plain(message), file=sys.stderr, flush=True)


def named(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are.

    >>> named("abcde")
    'a, b, c and 2 more'
    """
    found = [name if len(name) <= 120 else f"{name[:117]}..." for name in names]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{', '.join(found[:most])}{more}"


class WholeSet:
    """All files of a data set, of whose parts each counts its own broken ones; `broken` are the paths of all.

    Args:
        count: how many files there are.
        kind: what they are called.
        fault: what is wrong with broken ones.
    """

    def __init__(self, count: int, kind: str = "image", fault: str = "that cannot be decoded") -> None:
        self.count, self.kind, self.fault = count, kind, fault
        self.broken: set[str] = set()

    @property
    def most(self) -> float:
        """How many files may be broken."""
        return max(1.0, BROKEN_LIMIT * self.count)

    def told(self, paths: Iterable[str]) -> str:
        """`2 image files that cannot be decoded (a.png, b.png)`."""
        found = sorted(paths)
        return f"{counted(len(found), f'{self.kind} file')} {self.fault} ({named(found, 5)})"


class BrokenFiles:
    """Counts the files of one part of a set that could not be decoded; too many in the whole set stop the run.

    Args:
        paths: the files of the part.
        whole: the set; None where the part is all of it.
    """

    def __init__(self, paths: list[str], whole: WholeSet | None = None):
        self.paths = paths
        self.whole = whole or WholeSet(len(paths))
        self.rows: set[int] = set()
        self.reported = 0

    @property
    def left(self) -> float:
        """How many more may be broken before the run stops."""
        return self.whole.most - len(self.whole.broken)

    def add(self, rows: Tensor) -> None:
        self.rows.update(rows.tolist())
        self.whole.broken.update(self.paths[row] for row in self.rows)
        if len(self.whole.broken) > self.whole.most:
            share = f"more than {BROKEN_LIMIT:.0%} of {self.whole.count}"
            raise UserError(
                f"{self.whole.told(self.whole.broken)}, {share}; remove or repair these files, then run again"
            )
        if len(self.rows) >= len(self.paths) > 0:
            files = counted(len(self.paths), f"{self.whole.kind} file")
            raise UserError(f"none of {files} can be decoded, {self.paths[0]} first")

    def report(self) -> None:
        """Says how many files are skipped, when there are more than last time."""
        if len(self.rows) > self.reported:
            print(f"Skipped {self}.", file=sys.stderr, flush=True)  # from any rank: each sees files of its own
        self.reported = len(self.rows)

    def __str__(self) -> str:
        return self.whole.told(self.paths[row] for row in self.rows)
