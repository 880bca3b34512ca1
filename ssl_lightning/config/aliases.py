"""Where modules and classes have gone: their old dotted names with the new ones.

Cards, config.yaml files, users' yamls and users' imports name classes by where they once stood. Every such name is read
through `resolve`, before it is asked whether it may be named at all: an alias only stands for another name and allows
nothing by itself. Entries are added, never removed; `config/shims.py` makes the same ones importable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PACKAGE = "ssl_lightning"

# Modules and packages that moved as a whole, with everything in them.
MODULES: dict[str, str] = {
    "ssl_lightning.models.kmeans": "ssl_lightning.parts.kmeans",
    "ssl_lightning.models.queue": "ssl_lightning.parts.queue",
}
# Classes and functions that moved or were renamed by themselves; these win over the module that they stood in.
NAMES: dict[str, str] = {}


def resolve(dotted: str) -> str:
    """The present name of a module, class or function: "ssl_lightning.models.queue.Queue" -> "ssl_lightning.parts...".

    Names that are in use, and those of other packages, come back as they are. Moves of moves are followed.
    """
    if not dotted.startswith(f"{PACKAGE}."):
        return dotted
    for _ in range(len(MODULES) + len(NAMES) + 1):  # ends even if somebody adds a circle
        found = _once(dotted)
        if found == dotted:
            break
        dotted = found
    return dotted


def _once(dotted: str) -> str:
    """One move, by the longest entry that is this name or stands above it."""
    head, rest = dotted, ""
    while head != PACKAGE and head:
        for table in (NAMES, MODULES):
            if head in table:
                return table[head] + rest
        head, _, word = head.rpartition(".")
        rest = f".{word}{rest}"
    return dotted


def present(node: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy of one config node whose `_target_`, if it is a text, is a present name."""
    target = node.get("_target_")
    return {**node, "_target_": resolve(target)} if isinstance(target, str) else dict(node)


def resolved(value: Any) -> Any:
    """A copy of plain config values in which each `_target_` is a present name."""
    if isinstance(value, Mapping):
        return present({key: resolved(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(map(resolved, value))
    return value


def old_targets(value: Any, prefix: str = "") -> dict[str, str]:
    """The places of former names in plain config values, as dotted keys with the present names."""
    found: dict[str, str] = {}
    if isinstance(value, Mapping):
        for key, item in value.items():
            place = f"{prefix}.{key}" if prefix else str(key)
            if key == "_target_" and isinstance(item, str):
                found |= {place: resolve(item)} if resolve(item) != item else {}
            else:
                found |= old_targets(item, place)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            found |= old_targets(item, f"{prefix}.{i}")
    return found
