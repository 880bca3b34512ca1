"""One thing that is found of a run's health."""

from dataclasses import dataclass

OK, WATCH, BAD = "ok", "watch", "bad"
ORDER = (BAD, WATCH, OK)


@dataclass(frozen=True)
class Finding:
    """Three sentences at most, each complete.

    Args:
        kind: one word, for tests and programs.
        level: "ok", "watch" or "bad".
        says: what is seen.
        normal: what is normal for this method.
        fix: what to try.
        timed: whether it depends on how fast the machine was.
        unless: kinds that explain this one; where one of them was found before, it is not told.
    """

    kind: str
    level: str
    says: str
    normal: str = ""
    fix: str = ""
    timed: bool = False
    unless: tuple[str, ...] = ()
