"""References in a config, `${key}`: which key refers to which, and how much they may stand for.

A few lines of `a: ${b}${b}` stand for more than a memory holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.base import Container
from omegaconf.basecontainer import BaseContainer

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.plain_yaml import MAX_SCALAR, MAX_VALUES

WRITTEN = re.compile(r"\$\{(?:oc\.select:\s*)?([A-Za-z_][\w.]*)\s*[,}]")
TOO_MANY = "the references of this config (${...}) stand for too many values, or too long ones, for settings"
MOST = 2_000  # references followed in one config, about 3 ms each; ours have a hundred


@contextmanager
def bounded() -> Iterator[None]:
    """Raise a UserError where the references of a config, all written out, are too many or too long for settings."""
    followed = values = 0
    spent = False
    follow = Container.resolve_parse_tree

    def counted(self: Container, *arguments: Any, **others: Any) -> Any:
        nonlocal followed, values, spent
        followed += 1
        spent = spent or followed > MOST
        if not spent:
            found = follow(self, *arguments, **others)
            values += _size(found, MAX_VALUES - values)
            spent = spent or values > MAX_VALUES or (isinstance(found, str) and len(found) > MAX_SCALAR)
        if spent:
            raise UserError(TOO_MANY)
        return found

    Container.resolve_parse_tree = counted  # type: ignore[method-assign]
    try:
        yield
    except Exception as error:
        if spent:  # omegaconf may have made another error of ours on its way up
            raise UserError(TOO_MANY) from error
        raise
    finally:
        Container.resolve_parse_tree = follow  # type: ignore[method-assign]


def _size(value: Any, most: int) -> int:
    """How many values a node holds, as far as it matters."""
    seen, left = 0, [value]
    while left and seen <= most:
        item = left.pop()
        item = item._content if isinstance(item, BaseContainer) else item
        held = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        left += [one for one in held if isinstance(one, Node | dict | list)]
        seen += 1 + len(held)
    return seen


def told(node: DictConfig) -> dict[str, str]:
    """From each key that is written as a reference to the key that it refers to."""
    found: dict[str, str] = {}

    def look(value: Any, place: str) -> None:
        for key, item in value.items() if isinstance(value, dict) else ():
            look(item, f"{place}.{key}" if place else str(key))
        if isinstance(value, str) and (written := WRITTEN.search(value)):
            found[place] = written[1]

    look(OmegaConf.to_container(node, resolve=False), "")
    return found
