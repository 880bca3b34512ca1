"""What a look at data, method or machine finds: one line with a mark, and what to try."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Mark = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line of `stage=doctor`.

    Attributes:
        about: machine, data, method or cost.
        mark: "warn" for what may cost quality or time, "bad" for what will go wrong.
        what: was found.
        fix: what to try; "" where there is nothing to do.
    """

    about: str
    mark: Mark
    what: str
    fix: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)
