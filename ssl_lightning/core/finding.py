"""One thing that is found: of a run's health by its page, of data, method or machine by `stage=doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "watch", "bad"]
OK: Level = "ok"
WATCH: Level = "watch"
BAD: Level = "bad"
ORDER = (BAD, WATCH, OK)
MARKS = {OK: "ok", WATCH: "warn", BAD: "bad"}  # as doctor.json has them


@dataclass(frozen=True)
class Finding:
    """Three sentences at most, each complete.

    Attributes:
        kind: one word, for tests and programs; of `stage=doctor` machine, data, method or cost.
        level: "watch" for what may cost quality or time, "bad" for what is or will go wrong.
        says: what is seen.
        fix: what to try; "" where there is nothing to do.
        normal: what is normal for this method.
        timed: whether it depends on how fast the machine was.
        unless: kinds that explain this one; where one of them was found before, it is not told.
    """

    kind: str
    level: Level
    says: str
    fix: str = ""
    normal: str = ""
    timed: bool = False
    unless: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As doctor.json has it."""
        return {"about": self.kind, "mark": MARKS[self.level], "what": self.says, "fix": self.fix}
