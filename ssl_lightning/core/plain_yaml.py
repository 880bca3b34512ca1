"""Reads yaml and json that a stranger may have written: plain values, and no more of them than a config has."""

from __future__ import annotations

import functools
import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.core.errors import UserError

# How a file is opened to be read: without waiting for a pipe, and without changing its bytes.
READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
MAX_BYTES = 4 * 1024**2
MAX_SCALAR = 64 * 1024  # characters of one value
MAX_NUMBER = 400  # characters of one unquoted number: Python reads long ones in quadratic time
MAX_VALUES = 200_000  # with every alias written out
MAX_DEPTH = 64

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: str | Path) -> Any:
    """The content of a yaml file. Raises UserError for whatever `check` refuses and for what is no yaml."""
    text = check(path)
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:  # dates and numbers that there are not
        raise UserError(f"{path} cannot be read as yaml ({_first_line(error)})") from error


@functools.cache
def read_once(path: Path) -> Any:
    """The same of a yaml that does not change while a command is read: one of the configs. Not to be altered."""
    return read(path)


def read_json(path: str | Path) -> Any:
    """The content of a json file, as `read` that of a yaml file."""
    text = text_of(path, MAX_BYTES)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as json ({_first_line(error)})") from error


def check(path: str | Path) -> str:
    """The text of a yaml file that is safe to load.

    Raises UserError for what is no regular file, too large, or no plain data: an alias may stand for thousands of
    values that hold thousands of aliases, a tag may name a class. Only events are looked at: nothing is built.
    """
    text = text_of(path, MAX_BYTES)
    try:
        _walk(text, path)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} cannot be read as yaml ({_first_line(error)})") from error
    return text


def text_of(path: str | Path, limit: int) -> str:
    """The text of a regular file of at most `limit` bytes. A pipe would block, a device never end."""
    try:
        with open(os.open(path, READ), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path} is no regular file; put a file there, or remove it")
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > limit:
        raise UserError(f"{path} is larger than {limit // 1024} KiB, too large for a file of settings")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read: it is not a text file") from error


def _walk(text: str, path: str | Path) -> None:
    sizes: dict[str, int] = {}  # of each anchored node, with its aliases written out
    opened: list[tuple[str | None, int]] = []  # (anchor, values counted before it) of each node that is still open
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UserError(f"{path} refers to '*{event.anchor}' inside of itself or before it is there")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event, path)
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            _check_tag(event.tag, path)
            sizes.pop(event.anchor or "", None)
            opened.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > MAX_VALUES or len(opened) > MAX_DEPTH:
            what = f"nests more than {MAX_DEPTH} levels" if len(opened) > MAX_DEPTH else "has too many values"
            raise UserError(f"{path} {what} (aliases written out), too many for a file of settings")


def _check_scalar(event: yaml.ScalarEvent, path: str | Path) -> None:
    _check_tag(event.tag, path)
    number = not event.style and event.value[:1] in tuple("+-.0123456789")
    if len(event.value) > (MAX_NUMBER if number else MAX_SCALAR):
        raise UserError(f"{path} holds a value of {len(event.value)} characters, too long for a setting")


def _check_tag(tag: str | None, path: str | Path) -> None:
    if tag is not None and tag not in ("!", *(f"tag:yaml.org,2002:{kind}" for kind in _PLAIN)):
        raise UserError(f"{path} holds the tag '{tag}'; only plain values are read: remove the tag")


_PLAIN = ("str", "int", "float", "bool", "null", "seq", "map", "merge", "timestamp")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
