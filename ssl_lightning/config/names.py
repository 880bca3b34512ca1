"""Which class or function a name in a config stands for, and whether it may stand there: by name, source and import."""

from __future__ import annotations

import ast
import importlib
import inspect
import typing
from collections.abc import Callable, Collection
from typing import Any

from ssl_lightning.config import aliases, allowed, signatures, slots
from ssl_lightning.config.allowed import ANYWHERE, STAGE, STAGE_TAKES, Slot, shown
from ssl_lightning.core.errors import UserError, did_you_mean

Slots = tuple[Slot, ...]


def check_name(target: Any, trusted: tuple[str, ...], at: str, takes: Slots) -> None:
    """May this stand here, by its name alone?"""
    if allowed.listed(str(target), takes, trusted) and isinstance(target, str):
        return
    raise UserError(f"{at}{shown(target)} may not be named in a config{_why(target, trusted, takes)}")


def _why(target: Any, trusted: tuple[str, ...], takes: Slots) -> str:
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        return ": it is not the dotted name of a class"
    if any(part.startswith("_") for part in target.split(".")):
        return ": a name that begins with an underscore is private"
    package, known = target.split(".")[0], {home.split(".")[0] for slot in takes for home in slot.homes}
    if package in known:
        homes = {h.rstrip(".") for s in takes for h in s.homes if f"{h}.".startswith(f"{package}.")}
        homes = {home for home in homes if not any(home.startswith(f"{other}.") for other in homes)}
        functions = [f for s in takes for f in s.functions if f.startswith(f"{package}.")]
        functions = list(dict.fromkeys(_of_stages(name) for name in functions))
        return f". Of {package} these may: " + ", ".join([*functions, *(f"classes of {h}" for h in sorted(homes))])
    if allowed.never_trusted(package):
        return f"; '{package}' cannot be trusted either: write a class of your own"
    if hint := did_you_mean(package, known):
        return f".{hint}"
    return f". To allow a package of your own: trusted_packages=[{package}]"


def _of_stages(function: str) -> str:
    """A function by its name; those of the stages are told as one."""
    room, _, rest = function.partition(".stages.")
    return f"{room}.stages.NAME.run" if rest.endswith(".run") else function


def check_source(target: str, trusted: tuple[str, ...], at: str, takes: Slots) -> None:
    """Answer from the sources, before any import, what a module does not have, what is not its own, what cannot fit."""
    module, _, name = target.rpartition(".")
    if signatures.module_file(module) is None:
        _check_exists(target, at)
        return
    found = signatures.find(target)
    if found is None:
        if module.split(".")[0] == "ssl_lightning":
            _check_exists(target, at)
        return
    home, definition = found
    if isinstance(definition, ast.ClassDef | ast.FunctionDef):
        _check_home(target, home, definition.name, trusted, at, takes)
    if isinstance(definition, ast.ClassDef) and not slots.may_fit(target, takes):
        raise UserError(f"{at}{shown(target)} is no {_words(takes)}, which this place takes")
    if isinstance(definition, ast.FunctionDef) and not _is_builder(target, home, definition, trusted, takes):
        raise UserError(f"{at}{shown(target)} {_NO_FUNCTION}")


_NO_FUNCTION = "is a function: only a class may be named here, or a function of your own that says `-> nn.Module`"


def _is_builder(target: str, module: str, function: ast.FunctionDef, trusted: tuple[str, ...], takes: Slots) -> bool:
    """Is this function one of those listed, or one of the user's that returns what the place takes?"""
    if any(target in slot.functions for slot in takes):
        return True
    if not allowed.trusts(module, trusted):
        return False
    arguments = {a.arg for a in (*function.args.args, *function.args.kwonlyargs)}
    if STAGE in takes and arguments & STAGE_TAKES:
        return True
    above = [slots.ancestors(name)[0] for name in slots.classes(function.returns, module)]
    return any(slot.base in bases for slot in takes for bases in above)


def _words(takes: Slots) -> str:
    return " or ".join(dict.fromkeys(slot.word for slot in takes))


def _check_home(target: str, home: str, name: str, trusted: tuple[str, ...], at: str, takes: Slots) -> None:
    """What an allowed module merely imported from elsewhere is refused, too."""
    if any(target in slot.functions for slot in takes):
        return
    own = allowed.trusts(target.rpartition(".")[0], trusted)
    if not (allowed.trusts(home, trusted) if own else any(slot.holds(home, name) for slot in takes)):
        raise UserError(f"{at}{shown(target)} is {home}.{name}, which may not be named in a config")


def _check_exists(target: str, at: str) -> None:
    """Name the nearest thing where a module of the path, or the name in it, is not there."""
    module = target.rpartition(".")[0]
    while module and signatures.module_file(module) is None:
        module = module.rpartition(".")[0]
    if not module:
        return  # no source to read: importing it will tell
    name = target[len(module) + 1 :].split(".")[0]
    if signatures.lookup(module, name) is not None:
        raise UserError(f"{at}{shown(target)} may not be named in a config: '{name}' is no module, name a class itself")
    hint = did_you_mean(name, signatures.members(module))
    raise UserError(f"{at}{shown(target)} does not exist: no '{name}' in {module}.{hint}")


# ---- the thing itself -----------------------------------------------------------------------------------------------


def _import(target: str) -> Callable[..., Any]:
    """The class or function of this dotted name, or a UserError with the nearest name there is.

    All but the last word is a module: nothing is reached through a class, nor through what a module imported.
    """
    module, _, name = target.rpartition(".")
    try:
        home = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{target} needs the package '{error.name}', which is not installed.") from error
        where = "" if "." in error.name else " Start from the folder that it lies in, or put that folder in PYTHONPATH."
        raise UserError(f"'{target}': there is no module '{error.name}'.{where}") from error
    if not hasattr(home, name):
        raise UserError(f"'{target}' does not exist: no '{name}' in {module}.{did_you_mean(name, dir(home))}")
    thing: Any = getattr(home, name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        raise UserError(f"'{target}' is neither a class nor a function.")
    return thing  # type: ignore[no-any-return]


def load(target: str, trusted: Collection[str] = (), takes: Slots = ANYWHERE) -> Callable[..., Any]:
    """Import a class, or one of the few functions, that may stand in a place that takes this.

    Raises UserError for anything else: a foreign one that an allowed module merely imported, one of another base.
    """
    trusted = allowed.own_packages(trusted)
    target = aliases.resolve(target) if isinstance(target, str) else target
    check_name(target, trusted, "", takes)
    thing = _import(target)
    home = str(thing.__module__)
    if "." in thing.__qualname__:
        raise UserError(f"{shown(target)} is {home}.{thing.__qualname__}, which may not be named in a config")
    _check_home(target, home, thing.__name__, trusted, "", takes)
    if inspect.isclass(thing):
        if not any(_fits(thing, slot.base) for slot in takes):
            raise UserError(f"{shown(target)} is no {_words(takes)}, which this place takes")
    elif not any(target in slot.functions for slot in takes) and not (
        allowed.trusts(home, trusted) and _builds(thing, takes)
    ):
        raise UserError(f"{shown(target)} {_NO_FUNCTION}")
    return thing


def _fits(thing: type, base: str) -> bool:
    """Is this class one of this base? A protocol is met by having what it asks for."""
    if not base or not base.rpartition(".")[0]:
        return False
    module, _, name = base.rpartition(".")
    wanted = getattr(importlib.import_module(module), name, None)
    if getattr(wanted, "_is_protocol", False):
        methods = [member for member in vars(wanted) if not member.startswith("_")]
        return bool(methods) and all(hasattr(thing, member) for member in methods)
    return isinstance(wanted, type) and issubclass(thing, wanted)


def _builds(function: Callable[..., Any], takes: Slots) -> bool:
    """Does a user's function say that it returns what the place takes, or take what a stage is given?"""
    try:
        hints = typing.get_type_hints(function)
        arguments = inspect.signature(function).parameters
    except (NameError, TypeError, ValueError):
        return False
    if STAGE in takes and set(arguments) & STAGE_TAKES:
        return True
    made = hints.get("return")
    return inspect.isclass(made) and any(_fits(made, slot.base) for slot in takes)
