"""Former modules stay importable: `from ssl_lightning.models.queue import Queue` finds what `aliases` says.

One finder before Python's own ones, instead of a stub file for each module that moved. A module that moved as a whole
is the very module at its new place, so there are never two copies of a class. Importing this loads nothing heavy.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

from ssl_lightning.config import aliases


def install() -> None:
    """Put the finder before Python's own, once: those would find a moved package's modules a second time."""
    if not any(type(finder).__qualname__ == Finder.__qualname__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())


class Finder:
    """Answers for the modules that `aliases` names, and for no others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(f"{aliases.PACKAGE}."):
            return None
        names = [old.rpartition(".")[2] for old in aliases.NAMES if old.rpartition(".")[0] == name]
        moved = module_of(name)
        if moved is not None or names:
            real = importlib.machinery.PathFinder.find_spec(name, path) if moved is None else None
            if real is None:
                loader: Any = Former(moved, names)
                return importlib.machinery.ModuleSpec(name, loader, is_package=_is_package(name))
            if isinstance(real.loader, importlib.machinery.SourceFileLoader):  # it is there, and lacks some names
                real.loader = Lacking(real.loader.name, real.loader.path)
            return real
        return None


def module_of(name: str) -> str | None:
    """Where a module has gone, or None for one that has not moved as a whole."""
    head = name
    while head != aliases.PACKAGE and head:
        if head in aliases.MODULES:
            return aliases.resolve(name)
        head = head.rpartition(".")[0]
    return None


def _is_package(name: str) -> bool:
    return any(old.startswith(f"{name}.") for old in aliases.MODULES)


class Former:
    """Makes a module that is no longer at its name: the one at the new place, or one that looks each name up."""

    def __init__(self, moved: str | None, names: Iterable[str]) -> None:
        self.moved, self.names = moved, list(names)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if self.moved:
            home = importlib.import_module(self.moved)
            if name in aliases.MODULES:  # else the package above has told it
                _warn(name, self.moved)
            if not self.names:
                sys.modules[name] = home  # which the import system then takes
                return
        module.__doc__ = f"What stood in {name} has moved; see `ssl_lightning.config.aliases`."
        module.__dict__["__all__"] = [*self.names, *(_public(home) if self.moved else ())]
        module.__dict__["__getattr__"] = looked_up(name, home if self.moved else None)


class Lacking(importlib.machinery.SourceFileLoader):
    """Loads a module that is still there, and finds the names that have left it."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        own = module.__dict__.get("__getattr__")
        module.__dict__["__getattr__"] = looked_up(module.__name__, None, own)


def looked_up(module: str, home: ModuleType | None, own: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """A module's `__getattr__`: names that moved by themselves, then those of the module's new place."""

    def found(name: str) -> Any:
        old = f"{module}.{name}"
        if old in aliases.NAMES:
            new = aliases.resolve(old)
            _warn(old, new)
            place, _, last = new.rpartition(".")
            return getattr(importlib.import_module(place), last)
        if home is not None and hasattr(home, name):
            return getattr(home, name)
        if own is not None:
            return own(name)
        raise AttributeError(f"module '{module}' has no attribute '{name}'")

    return found


def _public(module: ModuleType) -> list[str]:
    return [name for name in getattr(module, "__all__", vars(module)) if not name.startswith("_")]


def _warn(old: str, new: str) -> None:
    # The frames of the import system do not count: 3 is the line that imports.
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)
