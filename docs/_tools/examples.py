"""Examples of docstrings, `>>>` lines where they stand, as code on the page of the API."""

import re
from typing import Any

from griffe import Extension, Object

BLOCK = re.compile(r"^(?:(?:Example|Examples):\n)?((?: {4})?>>> .*(?:\n(?!\n).+)*)", re.M)


class Examples(Extension):
    """Gives each block of `>>>` lines the heading under which Google's style reads it."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = BLOCK.sub(under_heading, obj.docstring.value)


def under_heading(found: re.Match[str]) -> str:
    lines = (line.removeprefix("    ").replace("  # doctest: +SKIP", "") for line in found[1].split("\n"))
    return "Examples:\n" + "\n".join(f"    {line}" for line in lines)
