"""Image files that cannot be decoded are skipped, counted and reported; too many of them stop the run."""

import sys

from torch import Tensor

from ssl_lightning import distributed
from ssl_lightning.errors import UserError

BROKEN_LIMIT = 0.01  # share of a set's files that may be broken


def say(message: str) -> None:
    """One line to the user, from the first process only."""
    if distributed.is_main():
        print(message, file=sys.stderr, flush=True)


class BrokenFiles:
    """Counts files that could not be decoded; too many of them stop the run.

    Args:
        paths: all files of the set.
    """

    def __init__(self, paths: list[str]):
        self.paths = paths
        self.rows: set[int] = set()
        self.reported = 0

    def add(self, rows: Tensor) -> None:
        self.rows.update(rows.tolist())
        if len(self.rows) > BROKEN_LIMIT * len(self.paths):
            raise UserError(
                f"{self}, more than {BROKEN_LIMIT:.0%} of {len(self.paths)}; remove or mend these files, then run again"
            )

    def report(self) -> None:
        """Says how many files are skipped, when there are more than last time."""
        if len(self.rows) > self.reported:
            print(f"Skipped {self}.", file=sys.stderr, flush=True)  # from any rank: each sees files of its own
        self.reported = len(self.rows)

    def __str__(self) -> str:
        names = ", ".join(self.paths[row] for row in sorted(self.rows)[:5])
        more = f" and {len(self.rows) - 5} more" if len(self.rows) > 5 else ""
        files = "file" if len(self.rows) == 1 else "files"
        return f"{len(self.rows)} image {files} that cannot be decoded ({names}{more})"
