"""Which arguments of a class matter to somebody who reads only some of its attributes, told from its source.

`data.engine` is kept in `self.engine`, which `train_dataloader` alone reads: it is nothing to a stage that never asks
for training batches. Whatever is not clear counts as mattering: too much is found here, never too little.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ssl_lightning.config import allowed, signatures

UNCLEAR = ("hparams", "hparams_initial", "__dict__")  # attributes behind which any argument may stand


class Unclear(Exception):
    """The source does not tell."""


def arguments(target: str, attributes: Iterable[str], learnt: Iterable[str] = ()) -> set[str] | None:
    """The arguments of the class of this dotted name on which these attributes depend; None where nobody can tell.

    `learnt`: attributes that a method may set, too, whose way there is not followed.
    """
    found = _arguments(target, frozenset(attributes), frozenset(learnt))
    return None if found is None else set(found)


@functools.cache
def _arguments(target: str, attributes: frozenset[str], learnt: frozenset[str]) -> frozenset[str] | None:
    try:
        levels = [_Level(module, node) for module, node in _lineage(target)]
        return frozenset(_Flow(levels, learnt).to(attributes))
    except Unclear:
        return None


def _lineage(target: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """A class and its bases, the nearest first, as far as they are ours or the user's own: others know no argument."""
    place = signatures.find(target)
    if place is None or not isinstance(place[1], ast.ClassDef):
        raise Unclear
    module, node = place
    assert isinstance(node, ast.ClassDef)
    yield module, node
    for base in node.bases:
        found = signatures.find(f"{module}.{ast.unparse(base)}")
        if found is None:
            raise Unclear
        top = found[0].split(".")[0]
        if top == "ssl_lightning" or not allowed.never_trusted(top):
            yield from _lineage(f"{found[0]}.{found[1].name}" if isinstance(found[1], ast.ClassDef) else "")


@dataclass
class _Level:
    """One class: its methods, and what its constructor makes of its arguments."""

    module: str
    node: ast.ClassDef
    methods: dict[str, ast.FunctionDef] = field(init=False)

    def __post_init__(self) -> None:
        self.methods = {item.name: item for item in self.node.body if isinstance(item, ast.FunctionDef)}

    @property
    def init(self) -> ast.FunctionDef | None:
        return self.methods.get("__init__")

    def params(self) -> list[str]:
        found = self.init.args if self.init else None
        return [a.arg for a in (*found.posonlyargs, *found.args, *found.kwonlyargs)][1:] if found else []


class _Flow:
    def __init__(self, levels: list[_Level], learnt: frozenset[str]) -> None:
        self.levels, self.learnt = levels, learnt

    def to(self, attributes: Iterable[str]) -> set[str]:
        seen, found, todo = set[str](), set[str](), list(attributes)
        while todo:
            name = todo.pop()
            if name in UNCLEAR:
                raise Unclear
            for i, level in enumerate(self.levels if name not in seen else ()):
                for function in level.methods.values():
                    if function is not level.init and (
                        function.name == name or (name not in self.learnt and _stores(function, name))
                    ):
                        todo += _attributes_of_self(function)
                names, others = _made_of(level, name)
                todo += others
                found |= self._outwards(i, names)
            seen.add(name)
        return found

    def _outwards(self, level: int, names: set[str]) -> set[str]:
        """Arguments of the constructor of a base as arguments of the class that was asked about."""
        while level > 0 and names:
            level -= 1
            names = _passed(self.levels[level], names, self.levels[level + 1].params())
        return names


def _attributes_of_self(function: ast.FunctionDef) -> list[str]:
    """What a method reads of `self`. Raises Unclear where it hands `self` on."""
    if (
        any(ast.unparse(d) in ("staticmethod", "classmethod") for d in function.decorator_list)
        or not function.args.args
    ):
        return []
    own = function.args.args[0].arg
    attributes = [node for node in ast.walk(function) if isinstance(node, ast.Attribute) and _is(node.value, own)]
    known = {node.value for node in attributes}
    if any(_is(node, own) and node not in known for node in ast.walk(function)):
        raise Unclear
    return [node.attr for node in attributes]


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_of_self(node: ast.AST, attribute: str) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == attribute and _is(node.value, "self")


def _stores(statement: ast.AST, attribute: str) -> bool:
    return attribute in _stored(statement)


def _stored(statement: ast.AST) -> frozenset[str]:
    """The attributes of `self` that a statement sets. Kept with the tree, which is asked hundreds of times."""
    if "stored" not in statement.__dict__:
        attributes = (node for node in ast.walk(statement) if isinstance(node, ast.Attribute))
        found = {n.attr for n in attributes if isinstance(n.ctx, ast.Store) and _is(n.value, "self")}
        statement.__dict__["stored"] = frozenset(found)
    return statement.__dict__["stored"]


def _made_of(level: _Level, attribute: str) -> tuple[set[str], list[str]]:
    """(arguments, other attributes) of which a constructor makes an attribute."""
    if level.init is None:
        return set(), []
    setters = {name for name, function in level.methods.items() if name != "__init__" and _stores(function, attribute)}
    sources = [part for statement in level.init.body for part in _sources(statement, attribute, setters)]
    names, attributes, seen = set[str](), list[str](), set[str]()
    while sources:
        for node in ast.walk(sources.pop()):
            if isinstance(node, ast.Attribute) and _is(node.value, "self"):
                attributes.append(node.attr)
            elif isinstance(node, ast.Name) and node.id != "self" and node.id not in seen:
                seen.add(node.id)
                names.add(node.id)
                sources += [value for target, value in _assignments(level.init) if _is(target, node.id)]
    kwargs = {level.init.args.kwarg.arg} if level.init.args.kwarg else set()
    if names & kwargs:
        raise Unclear
    return names & set(level.params()), attributes


def _sources(statement: ast.stmt, attribute: str, setters: set[str]) -> Iterator[ast.AST]:
    """The expressions that decide what `self.attribute` becomes in a statement: its values, and conditions around."""
    if not _stores(statement, attribute) and not any(_is_of_self(n, s) for n in ast.walk(statement) for s in setters):
        return
    inner = [child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt | ast.ExceptHandler)]
    if not inner:
        pairs = [value for target, value in _assignments(statement) if _stores(target, attribute)]
        yield from pairs or [statement]
        return
    yield from (child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.expr | ast.withitem))
    for child in inner:
        if isinstance(child, ast.stmt):
            yield from _sources(child, attribute, setters)
        else:
            yield child


def _assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.AST]]:
    """(target, value) of each assignment, pairs of equally long rows one by one; loops assign, too."""
    for item in ast.walk(node):
        if isinstance(item, ast.Assign):
            for target in item.targets:
                if isinstance(target, ast.Tuple) and isinstance(item.value, ast.Tuple):
                    yield from zip(target.elts, item.value.elts)
                else:
                    yield from ((part, item.value) for part in _parts(target))
        elif isinstance(item, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and item.value is not None:
            yield item.target, item.value
        elif isinstance(item, ast.For):
            yield from ((part, item.iter) for part in _parts(item.target))
        elif isinstance(item, ast.withitem) and item.optional_vars is not None:
            yield from ((part, item.context_expr) for part in _parts(item.optional_vars))


def _parts(target: ast.expr) -> list[ast.expr]:
    return list(target.elts) if isinstance(target, ast.Tuple | ast.List) else [target]


def _passed(level: _Level, names: set[str], order: list[str]) -> set[str]:
    """Which arguments of a class these arguments of its base (in this `order`) come from."""
    if level.init is None:
        return names
    calls = [
        node
        for node in ast.walk(level.init)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "__init__"
    ]
    found: set[str] = set()
    own, kwargs = set(level.params()), level.init.args.kwarg
    for call in calls:
        if any(isinstance(argument, ast.Starred) for argument in call.args):
            raise Unclear
        given: dict[str | None, ast.expr] = dict(zip(order, call.args))
        given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        loose = [keyword.value for keyword in call.keywords if keyword.arg is None]
        if any(not (kwargs and _is(value, kwargs.arg)) for value in loose):
            raise Unclear
        for name in names:
            if name in given:
                inside = {node.id for node in ast.walk(given[name]) if isinstance(node, ast.Name)}
                found |= own if inside - own else inside  # a local name may be made of any of them
            elif loose:
                found.add(name)
    return found
