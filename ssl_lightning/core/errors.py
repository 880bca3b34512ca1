"""The errors a user can fix, and the search for the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: one line that names the thing and its fix. The entry prints it without a traceback.

    >>> raise UserError("photos holds no image; give data.root=FOLDER")
    Traceback (most recent call last):
    ssl_lightning.core.errors.UserError: photos holds no image; give data.root=FOLDER
    """

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows, which asks for it by this name: the line, without a traceback through our code."""
        return [f"{type(self).__name__}: {self}"]


class Interrupted(BaseException):
    """A signal stopped the run, after its state was saved if it was training.

    Like KeyboardInterrupt it is no Exception: nothing that survives errors should survive this.

    Args:
        code: the exit status, 75 or 130.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted (exit status {code})")
        self.code = code


def nearest(name: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The option most like `name`, or None where none is alike."""
    options = [str(option) for option in options]
    lowered = {option.lower(): option for option in options}
    if name.lower() in lowered:
        return lowered[name.lower()]
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=cutoff)
    return lowered[found[0]] if found else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the option most like `name`, or "" where none is alike."""
    best = nearest(name, options)
    return f" Did you mean '{best}'?" if best else ""


def plain(text: str) -> str:
    """A message on one line, whatever the names in it are: a terminal's commands and line breaks are written out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
