"""What a class or function takes, read from its source without importing it: mistakes are answered at once."""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.config import aliases


@dataclass(frozen=True)
class Param:
    """One argument: its annotation as source, the module that was written in, and whether it must be given."""

    annotation: ast.expr | None = None
    module: str = ""
    required: bool = False
    default_none: bool = False
    default: ast.expr | None = None  # as source

    def default_value(self) -> tuple[Any, ...]:
        """(the default,) where the source alone tells it, else ()."""
        try:
            return (ast.literal_eval(self.default),) if self.default is not None else ()
        except (ValueError, TypeError, SyntaxError):
            return ()


@dataclass(frozen=True)
class Signature:
    """The arguments by name. `open` means any other name is taken too (`**kwargs` that leads nowhere we can follow)."""

    params: dict[str, Param] = field(default_factory=dict)
    open: bool = False

    def accepts(self, name: str) -> bool:
        return self.open or name in self.params


@dataclass(frozen=True)
class Import:
    """A name that another module defines: `from module import attribute` (attribute None: the module itself)."""

    module: str
    attribute: str | None


Definition = ast.ClassDef | ast.FunctionDef | ast.expr | Import


@functools.cache
def module_file(name: str) -> Path | None:
    """The source file of a module, found without importing the package it lies in."""
    loaded = sys.modules.get(name)
    if loaded is not None and (getattr(loaded, "__file__", None) or "").endswith(".py"):
        return Path(str(loaded.__file__))
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or []:
        stem = Path(folder, *rest)
        for file in (stem / "__init__.py", stem.with_name(stem.name + ".py")):
            if file.is_file():
                return file
    return None


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those under `if`, `try` and `with` included (their first branch)."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _statements(statement.body)
        else:
            yield statement


@functools.cache
def names(module: str) -> dict[str, Definition]:
    """What a module defines or imports by name; star imports aside (`lookup` follows those, and only when it must)."""
    file = module_file(module)
    found: dict[str, Definition] = {}
    for statement in _statements(_parse(file)) if file else ():
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            found[statement.target.id] = statement.value
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                found[alias.asname or alias.name.split(".")[0]] = Import(
                    alias.name if alias.asname else alias.name.split(".")[0], None
                )
        elif isinstance(statement, ast.ImportFrom):
            source = _source(statement, module)
            found |= {a.asname or a.name: Import(source, a.name) for a in statement.names if a.name != "*"}
    return found


@functools.cache
def _parse(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body


def _source(statement: ast.ImportFrom, module: str) -> str:
    """The absolute name of the module that a `from ... import` in `module` reads."""
    source = statement.module or ""
    if not statement.level:
        return source
    file = module_file(module)
    parents = module.split(".") if file and file.name == "__init__.py" else module.split(".")[:-1]
    return ".".join(parents[: len(parents) - statement.level + 1] + ([source] if source else []))


def lookup(module: str, name: str) -> Definition | None:
    """One name of a module; a submodule counts, and star imports are followed."""
    if name in names(module):
        return names(module)[name]
    file = module_file(module)
    for statement in _statements(_parse(file)) if file else ():
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            found = lookup(_source(statement, module), name)
            if found is not None:
                return found
    return None


def members(module: str) -> list[str]:
    """Public names and submodules of a module, for hints."""
    file = module_file(module)
    children: list[str] = []
    if file and file.name == "__init__.py":
        children = [p.stem for p in file.parent.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    return sorted(name for name in {*names(module), *children} if not name.startswith("_"))


def find(dotted: str, depth: int = 0) -> tuple[str, Definition] | None:
    """Where a dotted name is defined: (module, definition), imports followed; None where source does not tell."""
    dotted = aliases.resolve(dotted)
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        if module_file(module) is not None:
            break
    else:
        return None
    definition = lookup(module, parts[cut])
    for attribute in parts[cut + 1 :]:
        if isinstance(definition, Import):
            break
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        definition = next((m for m in body if isinstance(m, ast.FunctionDef) and m.name == attribute), None)
    if isinstance(definition, Import):
        steps = [definition.module, *([definition.attribute] if definition.attribute else []), *parts[cut + 1 :]]
        target = ".".join(steps)
        return find(target, depth + 1) if target != dotted and depth < 20 else None
    return None if definition is None else (module, definition)


@functools.cache
def read(target: str) -> Signature | None:
    """The signature of a class or function by its dotted name; None where its source does not tell."""
    place = find(target)
    if place is None:
        return None
    module, definition = place
    if isinstance(definition, ast.ClassDef):
        return _of_class(module, definition)
    if isinstance(definition, ast.FunctionDef):
        is_method = len(target.split(".")) > 1 and definition.name not in names(module)
        return _of_function(module, definition, skip_first=is_method)
    return None


def _of_function(module: str, function: ast.FunctionDef, skip_first: bool) -> Signature:
    arguments = function.args
    params: dict[str, Param] = {}
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults), *zip(arguments.kwonlyargs, arguments.kw_defaults)]
    for argument, default in pairs[1:] if skip_first else pairs:
        params[argument.arg] = _param(argument.annotation, module, default)
    return Signature(params, open=arguments.kwarg is not None)


def _param(annotation: ast.expr | None, module: str, default: ast.expr | None) -> Param:
    default_none = isinstance(default, ast.Constant) and default.value is None
    return Param(annotation, module, required=default is None, default_none=default_none, default=default)


def _of_class(module: str, node: ast.ClassDef) -> Signature:
    """The constructor, followed upwards through the bases while it passes `**kwargs` on."""
    functions = {f.name: f for f in node.body if isinstance(f, ast.FunctionDef)}
    own = functions.get("__init__") or functions.get("__new__")
    signature = _of_function(module, own, skip_first=True) if own is not None else None
    if signature is not None and not signature.open:
        return signature  # no base is read, which may be a long file of torch's
    inherited = next((s for s in map(functools.partial(_of_base, module), node.bases) if s is not None), None)
    if own is not None and signature is not None:
        if not signature.params:  # nn.Module's (*args, **kwargs): it names nothing, so nothing may be passed
            return inherited or Signature()
        if inherited is None or not inherited.params or not _passes_on(own):
            return signature
        return Signature(inherited.params | signature.params, inherited.open)
    if _is_dataclass(node):
        fields = {
            item.target.id: _param(item.annotation, module, item.value)
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            if not ast.unparse(item.annotation).startswith(("ClassVar", "typing.ClassVar"))
        }
        return Signature((inherited.params if inherited else {}) | fields)
    return inherited or Signature()


def _passes_on(own: ast.FunctionDef) -> bool:
    """Does a constructor give its `**kwargs` to another one? Else it keeps them for something that we cannot see."""
    assert own.args.kwarg is not None
    calls = [call for call in ast.walk(own) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)]
    given = [k.value for c in calls if c.func.attr in ("__init__", "__new__") for k in c.keywords if k.arg is None]  # type: ignore[attr-defined]
    return any(isinstance(value, ast.Name) and value.id == own.args.kwarg.arg for value in given)


def _of_base(module: str, base: ast.expr) -> Signature | None:
    if isinstance(base, ast.Subscript):  # Generic[T]
        base = base.value
    place = find(f"{module}.{ast.unparse(base)}")
    return _of_class(*place) if place and isinstance(place[1], ast.ClassDef) else None  # type: ignore[arg-type]


def _is_dataclass(node: ast.ClassDef) -> bool:
    decorators = [ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list]
    bases = [ast.unparse(base) for base in node.bases]
    return any(d.split(".")[-1] == "dataclass" for d in decorators) or any(b.endswith("NamedTuple") for b in bases)
