"""Which place a class fits, read from sources: the bases of a class, and the classes that an annotation names."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator

from ssl_lightning.config import allowed, signatures
from ssl_lightning.config.allowed import Slot

# Names of typing and builtins that say nothing about a class; `Callable` and containers are looked into.
SILENT = ("Any", "Literal", "Optional", "Union", "Callable", "type", "int", "float", "bool", "str", "None", "object")
TENSOR = "torch.Tensor"


def ancestors(dotted: str) -> tuple[frozenset[str], bool]:
    """(a class and its bases by the names of their own modules, whether these are all that there are)."""
    place = signatures.find(dotted)
    if place is None or not isinstance(place[1], ast.ClassDef):
        return frozenset(), dotted.rpartition(".")[2] == "object"
    return _ancestors(f"{place[0]}.{place[1].name}", *_class(place))


def _class(place: tuple[str, signatures.Definition]) -> tuple[str, ast.ClassDef]:
    assert isinstance(place[1], ast.ClassDef)
    return place[0], place[1]


@functools.cache
def _ancestors(own: str, module: str, node: ast.ClassDef) -> tuple[frozenset[str], bool]:
    found, whole = {own}, True
    for base in node.bases:
        name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        above, known = ancestors(f"{module}.{name}") if f"{module}.{name}" != own else (frozenset(), False)
        found |= above
        whole = whole and known
    return frozenset(found), whole


def classes(annotation: ast.expr | None, module: str) -> Iterator[str]:
    """The classes that an annotation asks for, by the names of their own modules; of a function, what it returns."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        yield from classes(annotation.left, module)
        yield from classes(annotation.right, module)
    elif isinstance(annotation, ast.Subscript):
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        name = ast.unparse(annotation.value).rpartition(".")[2]
        if name not in ("Literal", "type", "Type"):
            for expr in inner[-1:] if name == "Callable" else inner:
                yield from classes(expr, module)
    elif isinstance(annotation, ast.Name | ast.Attribute):
        yield from _named(ast.unparse(annotation), module)


def _named(name: str, module: str) -> Iterator[str]:
    last = name.rpartition(".")[2]
    if last == "Tensor":
        yield TENSOR
    elif last not in SILENT:
        place = signatures.find(f"{module}.{name}")
        if place is not None and isinstance(place[1], ast.ClassDef):
            yield f"{place[0]}.{place[1].name}"
        elif place is not None and isinstance(place[1], ast.Subscript | ast.BinOp):  # an alias
            yield from classes(place[1], place[0])


def slots_of(param: signatures.Param | None) -> tuple[Slot, ...]:
    """What an argument takes; every place's classes where its annotation does not tell."""
    if param is None or param.annotation is None:
        return allowed.ANYWHERE
    return tuple(map(slot_for, dict.fromkeys(classes(param.annotation, param.module)))) or allowed.ANYWHERE


def slot_for(base: str) -> Slot:
    """The place that takes this class: a listed one, or one of its own with the homes of what it descends from."""
    if base == TENSOR:  # what is called with tensors and returns one is a loss, a module
        return allowed.MODULE
    if base in allowed.BY_BASE:
        return allowed.BY_BASE[base]
    above = [slot for slot in allowed.SLOTS if slot.base in ancestors(base)[0]]
    homes = {home: names for slot in above for home, names in slot.homes.items()}
    return Slot(base, homes, inside=any(slot.inside for slot in above))


def may_fit(dotted: str, slots: Iterable[Slot]) -> bool:
    """Can this class be of one of these bases? True, too, where sources do not tell: building it will."""
    found, whole = ancestors(dotted)
    return not whole or any(slot.base in found or _meets(found, slot.base) for slot in slots)


def _meets(found: Iterable[str], base: str) -> bool:
    """A protocol is met by having the methods that it asks for."""
    place = signatures.find(base) if base else None
    bases = place[1].bases if place and isinstance(place[1], ast.ClassDef) else []
    is_protocol = any(ast.unparse(b).split("[")[0].rpartition(".")[2] == "Protocol" for b in bases)
    return is_protocol and _methods([base]) <= _methods(found)


def _methods(names: Iterable[str]) -> set[str]:
    bodies = [place[1].body for place in map(signatures.find, names) if place and isinstance(place[1], ast.ClassDef)]
    return {f.name for body in bodies for f in body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")}
