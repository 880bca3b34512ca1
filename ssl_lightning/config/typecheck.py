"""Does a value from the command line fit an argument's annotation? Lenient where it says more than yaml can."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from ssl_lightning.config import allowed, signatures

WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "Path": "a path",
    "timedelta": "a duration",
}
LISTS = ("list", "List", "Sequence", "Iterable", "Collection")
TUPLES = ("tuple", "Tuple")
DICTS = ("dict", "Dict", "Mapping")
BUILT = ("Tensor", "Module", "Callable", "Optimizer")  # only a node with a `_target_` can give one of these


class Mismatch(Exception):
    """The value does not fit. Its text says what was wanted; `choices` holds the allowed values where these are few."""

    def __init__(self, wants: str, choices: tuple[Any, ...] = ()) -> None:
        super().__init__(wants)
        self.choices = choices


def convert(value: Any, param: signatures.Param) -> Any:
    """`value` as the annotation wants it (1 -> 1.0 for a float, a list -> a tuple); raises Mismatch where it cannot be.

    Objects already built, nodes to be built and annotations that are classes of their own always pass.
    """
    if param.annotation is None or (value is None and param.default_none):
        return value
    return _convert(value, param.annotation, param.module)


def _convert(value: Any, annotation: ast.expr, module: str) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        return value  # its own arguments are checked; what it builds is the class' business
    members = list(_members(annotation, module))
    fitting = [result for member in members for result in _fit(value, *member)]
    if not fitting:
        choices = tuple(dict.fromkeys(choice for expr, _ in members for choice in _choices(expr)))
        words = [_words(expr, home) for expr, home in members if not _choices(expr)]
        words += ["one of " + ", ".join(dict.fromkeys(map(str, choices)))] if choices else []
        raise Mismatch(" or ".join(dict.fromkeys(words)), choices)
    exact = [result for result in fitting if type(result) is type(value)]  # int | float: 1 stays 1
    return (exact or fitting)[0]


def _name(expr: ast.expr) -> str:
    if isinstance(expr, ast.Subscript):
        return _name(expr.value)
    return expr.attr if isinstance(expr, ast.Attribute) else expr.id if isinstance(expr, ast.Name) else ""


def _arguments(expr: ast.expr) -> list[ast.expr]:
    if not isinstance(expr, ast.Subscript):
        return []
    return list(expr.slice.elts) if isinstance(expr.slice, ast.Tuple) else [expr.slice]


def _members(expr: ast.expr, module: str) -> Iterator[tuple[ast.expr, str]]:
    """The alternatives of a union, with aliases (`Engine = Literal["device", "worker"]`) opened."""
    if isinstance(expr, ast.Constant) and isinstance(expr.value, str):
        expr = ast.parse(expr.value, mode="eval").body
    if isinstance(expr, ast.BinOp):
        yield from _members(expr.left, module)
        yield from _members(expr.right, module)
    elif _name(expr) == "Union" or _name(expr) == "Optional":
        for argument in _arguments(expr):
            yield from _members(argument, module)
        if _name(expr) == "Optional":
            yield ast.Constant(None), module
    else:
        place = signatures.find(f"{module}.{expr.id}") if isinstance(expr, ast.Name) else None
        if place is not None and isinstance(place[1], ast.Subscript | ast.BinOp):
            yield from _members(place[1], place[0])
        else:
            yield expr, module


def _fit(value: Any, expr: ast.expr, module: str) -> list[Any]:
    """[the converted value], or [] where it does not fit this one alternative."""
    name, arguments = _name(expr), _arguments(expr)
    if isinstance(expr, ast.Constant):
        return [value] if value is None or expr.value is not None else []
    if name == "Literal":
        return [value] if any(value == c and type(value) is type(c) for c in _choices(expr)) else []
    if name in ("int", "float", "bool", "str"):
        return _fit_scalar(value, name)
    if name in LISTS + TUPLES:
        return _fit_items(value, name, arguments, module)
    if name in DICTS:
        return [value] if isinstance(value, dict) else []
    if name in BUILT or _is_ours(expr, module):
        return [value] if not _plain(value) else []
    if value is None:  # for which a class of others' is no annotation: `X | None` says so where it may be
        return (
            [value] if name in ("", "Any", "object") or signatures.find(f"{module}.{ast.unparse(expr)}") is None else []
        )
    return [value]  # a class of others', Any, Path: not for yaml to judge


def _plain(value: Any) -> bool:
    """Is this what yaml holds, and nothing that was built?"""
    return value is None or isinstance(value, bool | int | float | str | list | dict)


def _is_ours(expr: ast.expr, module: str) -> bool:
    """Does an annotation name a class of this package or of a place in the config, which only a `_target_` gives?"""
    place = signatures.find(f"{module}.{ast.unparse(expr)}") if isinstance(expr, ast.Name | ast.Attribute) else None
    if place is None or not isinstance(place[1], ast.ClassDef):
        return False
    return place[0].startswith("ssl_lightning.") or f"{place[0]}.{place[1].name}" in allowed.BY_BASE


def _fit_scalar(value: Any, name: str) -> list[Any]:
    if isinstance(value, bool) or name == "bool":
        return [value] if isinstance(value, bool) and name == "bool" else []
    if name == "str":
        return [value] if isinstance(value, str) else [str(value)] if isinstance(value, int | float) else []
    if isinstance(value, int):
        return [float(value) if name == "float" else value]
    return [value] if isinstance(value, float) and name == "float" else []


def _fit_items(value: Any, name: str, arguments: list[ast.expr], module: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        return []
    kinds = arguments
    if name in TUPLES and arguments and not (isinstance(arguments[-1], ast.Constant) and arguments[-1].value is ...):
        if len(arguments) != len(value):
            return []
    elif arguments:
        kinds = [arguments[0]] * len(value)
    try:
        items = [_convert(item, kind, module) for item, kind in zip(value, kinds)] if kinds else list(value)
    except Mismatch:
        return []
    return [tuple(items) if name in TUPLES else items]


def _choices(expr: ast.expr) -> tuple[Any, ...]:
    return tuple(a.value for a in _arguments(expr) if isinstance(a, ast.Constant)) if _name(expr) == "Literal" else ()


def _words(expr: ast.expr, module: str) -> str:
    """An annotation in plain words."""
    name, arguments = _name(expr), _arguments(expr)
    if arguments and (name in LISTS or (name in TUPLES and ast.unparse(arguments[-1]) == "...")):
        choices = [str(choice) for item, _ in _members(arguments[0], module) for choice in _choices(item)]
        if choices:
            return f"a list of any of {', '.join(dict.fromkeys(choices))}"
    if isinstance(expr, ast.Constant):
        return "null"
    if name in LISTS + TUPLES and arguments and _is_ours(arguments[0], module):
        return f"a list of nodes with a _target_ ({_name(arguments[0])})"
    if name in TUPLES and arguments and not isinstance(arguments[-1], ast.Constant):
        return f"a list of {len(arguments)}"
    if name in BUILT:
        return "a node with a _target_"
    if name and name not in WORDS and name not in LISTS + TUPLES + DICTS and name[0].isupper():
        return f"a node with a _target_ ({name})"
    return WORDS.get(name, "a list" if name in LISTS + TUPLES else "a mapping" if name in DICTS else name)
