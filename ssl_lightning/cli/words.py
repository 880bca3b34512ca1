"""Paths and names on the command line are text: `data.root=photos (copy)` is read as typed, not as Hydra's grammar.

Which keys take text is told by the annotation of what they are given to (`str`, `Path`). Of their values only these
are more than text: `null` where that is allowed, true and false where these are, `${...}` (a reference), a value that
stands in quotes as a whole, and with -m the commas between several values.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from ssl_lightning.cli import help
from ssl_lightning.config import signatures
from ssl_lightning.core import plain_yaml
from ssl_lightning.core.errors import UserError

TEXT = {"str", "Path"}
FUNCTIONS = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag|extend_list)\(.*\)")  # of a sweep


def as_typed(words: Sequence[str], config_dir: Path | None = None, sweep: bool = False) -> list[str]:
    """The words as Hydra has to be given them: values of text in quotes where its grammar would read something else."""
    return [_word(word, config_dir, sweep) for word in words]


def quoted(text: str) -> str:
    """Text as Hydra's grammar takes any text."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def _word(word: str, config_dir: Path | None, sweep: bool) -> str:
    found = re.match(r"(\+{0,2}([A-Za-z_][\w.]*))=(.*)", word, re.DOTALL)
    kinds = _kinds(found[2], config_dir) if found else frozenset[str]()
    if not found or not kinds & TEXT:
        return word
    values = _apart(found[3]) if sweep and not FUNCTIONS.fullmatch(found[3]) else [found[3]]
    if sweep and FUNCTIONS.fullmatch(found[3]):
        return word
    return f"{found[1]}={','.join(_value(value, kinds) for value in values)}"


def _value(text: str, kinds: frozenset[str]) -> str:
    if (text == "null" and "None" in kinds) or (text in ("true", "false") and "bool" in kinds):
        return text
    try:
        parsed = OverridesParser.create().parse_overrides([f"x={text}"])[0]
        value = parsed.value()
    except (HydraException, ValueError):
        return quoted(text)
    plain = not parsed.is_sweep_override() and text == text.strip()
    kept = isinstance(value, QuotedString) or (isinstance(value, list) and "list" in kinds)
    as_it_is = isinstance(value, str) and value == text and text != ""
    whole = isinstance(parsed._value, QuotedString)
    return text if plain and (kept or as_it_is or whole) else quoted(text)


def _apart(text: str) -> list[str]:
    """The values of a sweep: at the commas that stand in no quotes and in no brackets."""
    parts, quote, depth, start = [], "", 0, 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote and text[i - 1] != "\\" else quote
        elif letter in "'\"" and i == start:
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and depth <= 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


@functools.cache
def _kinds(key: str, config_dir: Path | None) -> frozenset[str]:
    """The types that a key takes, by name; several options of a group may each have a class with such an argument."""
    group, _, argument = key.partition(".")
    if not argument:
        return _types("ssl_lightning.cli.compose.Settings", key)
    folders = [folder for folder in (help.conf_dir(), config_dir) if folder]
    files = [file for folder in folders for file in sorted((folder / group).glob("*.yaml"))]
    return frozenset().union(
        *(_types(target, argument.rpartition(".")[2]) for file in files for target in _targets(file, argument))
    )


@functools.cache
def _targets(file: Path, argument: str) -> list[str]:
    try:
        node = plain_yaml.read_once(file)
    except UserError:  # said where it is composed
        return []
    found = []
    for part in (node, node.get(file.parent.name)) if isinstance(node, dict) else ():
        for key in argument.split(".")[:-1]:
            part = part.get(key) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(part.get("_target_"), str):
            found.append(part["_target_"])
    return found


def _types(target: str, argument: str) -> frozenset[str]:
    signature = signatures.read(target)
    param = signature.params.get(argument) if signature else None
    if param is None or param.annotation is None:
        return frozenset()
    names: set[str] = set()

    def take(node: Any) -> None:
        if isinstance(node, ast.BinOp):
            take(node.left)
            take(node.right)
        elif isinstance(node, ast.Constant):
            names.add(str(node.value))
        elif isinstance(node, ast.Subscript):  # Sequence[str], Optional[Path], Literal[...]
            outer = ast.unparse(node.value).rpartition(".")[2]
            names.add("list" if outer in ("list", "Sequence", "tuple", "Iterable", "Collection") else outer)
        else:
            names.add(ast.unparse(node).rpartition(".")[2])

    take(param.annotation)
    numbers = names & {"int", "float"}
    return frozenset(names) if not numbers else frozenset()
