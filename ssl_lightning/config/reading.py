"""What a function reads of a part that it is handed, told from its source: no list that could lag behind the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl_lightning.config import signatures

Function = ast.FunctionDef | ast.ClassDef


@dataclass
class Reads:
    """Of one part: its attributes that are read, the calls of the part itself, and whether it leaves our sight."""

    attributes: set[str] = field(default_factory=set)
    calls: list[dict[str, ast.expr]] = field(default_factory=list)  # keyword arguments
    whole: bool = False

    def add(self, other: Reads) -> None:
        self.attributes |= other.attributes
        self.calls += other.calls
        self.whole |= other.whole


def reads(target: str, name: str, known: Mapping[str, Any] | None = None) -> Reads:
    """What the function or class of this dotted name reads of its argument `name`, and all that it hands it on to.

    `known`: values of other arguments of the function; what is never reached with them is not read.
    """
    place = signatures.find(target)
    if place is None or not isinstance(place[1], Function):
        return Reads(whole=True)
    return _of(place[0], place[1], name, set(), known or {})


def arguments(target: str, known: Mapping[str, Any]) -> set[str] | None:
    """Those of its arguments that a function reads where some have `known` values; None where no source tells."""
    place = signatures.find(target)
    if place is None or not isinstance(place[1], ast.FunctionDef):
        return None
    function = place[1]
    own = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    return {node.id for node in _live(function, known) if isinstance(node, ast.Name)} & own


def _of(
    module: str, definition: Function, name: str, seen: set[tuple[str, str, str]], values: Mapping[str, Any]
) -> Reads:
    key = (module, definition.name, name)
    if key in seen:
        return Reads()
    seen.add(key)
    function = _constructor(definition)
    if function is None:
        return Reads(whole=True)
    found, known = Reads(), set[ast.expr]()
    live = list(_live(function, values))
    for node in live:
        if isinstance(node, ast.Attribute) and _is(node.value, name):
            found.attributes.add(node.attr)
            known.add(node.value)
        elif isinstance(node, ast.Call):
            if _is(node.func, name):
                found.calls.append({keyword.arg or "**": keyword.value for keyword in node.keywords})
                known.add(node.func)
            for argument, there in _handed_on(module, node, name):
                known.add(argument)
                found.add(_of(*there, seen, {}) if there else Reads(whole=True))
        elif isinstance(node, ast.Assign) and isinstance(definition, ast.ClassDef):
            for value, attribute in _kept(node, name):
                known.add(value)
                found.attributes |= _attributes_of_kept(definition, attribute)
    names = (node for node in live if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    found.whole |= any(_is(node, name) and node not in known for node in names)
    return found


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _constructor(definition: Function) -> ast.FunctionDef | None:
    if isinstance(definition, ast.FunctionDef):
        return definition
    return next((f for f in definition.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)


def _handed_on(module: str, call: ast.Call, name: str) -> list[tuple[ast.expr, tuple[str, Function, str] | None]]:
    """The arguments of a call that are the part, each with the function that gets it and its name there."""
    callee, positional = call.func, list(call.args)
    if _is(callee, "partial") and positional:
        callee, positional = positional[0], positional[1:]
    place = signatures.find(f"{module}.{callee.id}") if isinstance(callee, ast.Name) else None
    definition = place[1] if place and isinstance(place[1], Function) else None
    function = _constructor(definition) if definition else None
    own = [argument.arg for argument in function.args.args] if function else []
    own = own[1:] if isinstance(definition, ast.ClassDef) else own
    found: list[tuple[ast.expr, tuple[str, Function, str] | None]] = []
    for i, argument in enumerate(positional):
        if _is(argument, name):
            clear = i < len(own) and not any(isinstance(before, ast.Starred) for before in positional[:i])
            found.append((argument, (place[0], definition, own[i]) if place and definition and clear else None))
    for keyword in call.keywords:
        if _is(keyword.value, name):
            there = (place[0], definition, keyword.arg) if place and definition and keyword.arg else None
            found.append((keyword.value, there))
    return found


def _kept(node: ast.Assign, name: str) -> list[tuple[ast.expr, str]]:
    """`self.x = part`, alone or in a row of several: (the part, x)."""
    pairs = [(node.targets[0], node.value)]
    if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
        pairs = list(zip(node.targets[0].elts, node.value.elts, strict=False))
    return [(v, t.attr) for t, v in pairs if _is(v, name) and isinstance(t, ast.Attribute) and _is(t.value, "self")]


def _attributes_of_kept(definition: ast.ClassDef, attribute: str) -> set[str]:
    """What a class reads of `self.attribute`."""
    return {
        node.attr
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == attribute
        and _is(node.value.value, "self")
    }


# ---- what is reached ------------------------------------------------------------------------------------------------


def _live(function: ast.FunctionDef, values: Mapping[str, Any]) -> Iterator[ast.AST]:
    """The nodes of a function's body that can be reached where arguments that it never changes have these values."""
    changed = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return _reached(function.body, {name: value for name, value in values.items() if name not in changed})


def _reached(items: Any, known: Mapping[str, Any]) -> Iterator[ast.AST]:
    for item in items if isinstance(items, list) else [items]:
        if not isinstance(item, ast.AST):
            continue
        yield item
        left_out = _left_out(item, known)
        for field_name, value in ast.iter_fields(item):
            if field_name != left_out:
                yield from _reached(value, known)
        if isinstance(item, ast.stmt) and _ends(item, known):
            break


def _left_out(node: ast.AST, known: Mapping[str, Any]) -> str:
    """The branch that is not taken, by its name in the tree; "" where both may be."""
    found = _truth(node.test, known) if isinstance(node, ast.If | ast.IfExp) else None
    return {True: "orelse", False: "body", None: ""}[found]


def _ends(statement: ast.stmt, known: Mapping[str, Any]) -> bool:
    """Is nothing reached that stands after this statement?"""
    if isinstance(statement, ast.With):
        return any(_ends(inner, known) for inner in statement.body)
    if isinstance(statement, ast.If):
        out = _left_out(statement, known)
        branches = {"body": statement.body, "orelse": statement.orelse}
        return all(any(_ends(inner, known) for inner in branch) for name, branch in branches.items() if name != out)
    return isinstance(statement, ast.Return | ast.Raise)


def _truth(test: ast.expr, known: Mapping[str, Any]) -> bool | None:
    """Whether a condition holds; None where these values do not tell."""
    if isinstance(test, ast.Name) and test.id in known:
        return bool(known[test.id])
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _truth(test.operand, known)
        return None if inner is None else not inner
    if isinstance(test, ast.BoolOp):
        decides = isinstance(test.op, ast.Or)  # one such part is enough
        parts = [_truth(part, known) for part in test.values]
        return decides if decides in parts else None if None in parts else not decides
    return None
