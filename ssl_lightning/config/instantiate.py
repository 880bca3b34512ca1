"""From a config node to an object: what may be named where (`allowed.py`), and a check of every argument beforehand."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ssl_lightning.config import aliases, allowed, names, ranges, signatures, slots, typecheck
from ssl_lightning.config.allowed import ANYWHERE, shown
from ssl_lightning.config.names import Slots, load
from ssl_lightning.core import one_line, secrets
from ssl_lightning.core.errors import UserError, did_you_mean

__all__ = ["check", "check_value", "instantiate", "load", "signature_of"]

GIVEN_BY_THE_RUN = ("run_path",)  # never a config's to say
ROOTED = ("dirpath", "save_dir")  # folders of Lightning's own classes: inside the run's


def check(
    node: Any,
    trusted: Collection[str] = (),
    where: str = "",
    injected: Collection[str] = (),
    takes: Slots = ANYWHERE,
) -> None:
    """Raise a UserError for the first `_target_`, argument name or value in `node` that cannot be right.

    `where` is the node's place in the config ("method.loss"), for the message; `injected` are arguments that are
    passed at the top by the caller; `takes` is what the place takes. Reads sources only: nothing heavy is imported.
    What sources do not tell of a class is checked when it is built.
    """
    trusted = allowed.own_packages(trusted)
    if isinstance(node, list | tuple):
        for i, item in enumerate(node):
            check(item, trusted, f"{where}.{i}" if where else str(i), takes=takes)
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        _check_deeper(node, _check_node(node, trusted, where, injected, takes), trusted, where)
        return
    for key, value in node.items():
        check(value, trusted, f"{where}.{key}" if where else str(key), takes=takes)


def check_arguments(
    target: str, arguments: dict[str, Any], trusted: Collection[str], where: str, injected: Collection[str] = ()
) -> None:
    """The same for the arguments of a class that we name ourselves: lightning.Trainer."""
    signature = signature_of(target)
    for name, value in arguments.items():
        _check_argument(name, value, target, signature, where, injected)
    _check_deeper(arguments, signature, allowed.own_packages(trusted), where)


def _check_deeper(node: dict[str, Any], signature: signatures.Signature, trusted: Collection[str], where: str) -> None:
    for name, value in node.items():
        if isinstance(value, dict | list | tuple):
            takes = slots.slots_of(signature.params.get(name))
            check(value, trusted, f"{where}.{name}" if where else name, takes=takes)


def _check_node(
    node: dict[str, Any], trusted: tuple[str, ...], where: str, injected: Collection[str], takes: Slots
) -> signatures.Signature:
    at = f"{where}: " if where else ""
    node = aliases.present(node)
    target = node["_target_"]
    names.check_name(target, trusted, at, takes)
    names.check_source(target, trusted, at, takes)
    signature = signature_of(target, trusted, takes)
    for name, value in node.items():
        if name not in ("_target_", "_partial_"):
            _check_argument(name, value, target, signature, where, injected)
    if node.get("_partial_", False) not in (True, False):
        raise UserError(f"{at}_partial_ is true or false, not {shown(node['_partial_'])}")
    _check_inside(node, trusted, where, takes)
    needed = [name for name, param in signature.params.items() if param.required]
    if not _kept_inside(target, trusted, takes):
        injected = [name for name in injected if name not in ROOTED]
    missing = [name for name in needed if name not in node and name not in injected]
    if missing and not node.get("_partial_"):
        raise UserError(
            f"{at}{_short(target)} needs '{missing[0]}'; add +{where + '.' if where else ''}{missing[0]}=..."
        )
    return signature


def _check_argument(
    name: Any, value: Any, target: str, signature: signatures.Signature, where: str, injected: Collection[str]
) -> None:
    at, place_of = f"{where}: " if where else "", f"{where}.{name}" if where else str(name)
    if not isinstance(name, str) or name.startswith("_") or not signature.accepts(name):
        hint = did_you_mean(str(name), signature.params) or f" It takes {', '.join(signature.params) or 'none'}."
        raise UserError(f"{at}{_short(target)} takes no argument {shown(name)}.{hint}")
    if name in GIVEN_BY_THE_RUN or (name in injected and name not in ROOTED):
        raise UserError(f"{at}'{name}' is not for a config to set: the run does; take it out")
    if name in signature.params:
        check_value(value, signature.params[name], place_of, target)


def _check_inside(node: dict[str, Any], trusted: tuple[str, ...], where: str, takes: Slots) -> None:
    """Text given to callbacks, loggers and the like is no path that leads out of the run's folder."""
    if not _kept_inside(node["_target_"], trusted, takes):
        return
    for key, value in node.items():
        for text in _texts(value):
            place = f"{where + '.' if where else ''}{key}"
            if key != "_target_" and secrets.mask(text) != text:
                raise UserError(f"{place} holds a secret, which would be written or sent; give another value")
            if key != "_target_" and allowed.leads_out(text):
                raise UserError(f"{place}={shown(text)} leads out of the run's folder; give a name or a path inside it")


def _kept_inside(target: str, trusted: tuple[str, ...], takes: Slots) -> bool:
    module, _, name = target.rpartition(".")
    return not allowed.trusts(module, trusted) and any(slot.inside and slot.holds(module, name) for slot in takes)


def _texts(value: Any) -> Iterable[str]:
    """The texts in a plain value; nodes inside it are looked at by themselves."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict) and "_target_" not in value:
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)


def _short(target: str) -> str:
    return ".".join(target.split(".")[-2:])


def check_value(value: Any, param: signatures.Param, where: str, target: str = "") -> None:
    """Raise a UserError where a value does not fit its argument's annotation, or the range that `target` gives it."""
    try:
        typecheck.convert(value, param)
    except typecheck.Mismatch as mismatch:
        given = "null" if value is None else repr(value)
        raise UserError(
            f"{where} wants {mismatch}, not {given}.{did_you_mean(str(value), map(str, mismatch.choices))}"
        ) from None
    ranges.check(target, where.rpartition(".")[2], value, where)


def signature_of(target: str, trusted: Collection[str] = (), takes: Slots = ANYWHERE) -> signatures.Signature:
    """The arguments of a class or function; from its source where that tells, else by importing it."""
    target = aliases.resolve(target)
    found = signatures.read(target) if signatures.module_file(target.rpartition(".")[0]) else None
    if found is not None:
        return found
    thing = load(target, trusted, takes)
    params: dict[str, signatures.Param] = {}
    try:
        listed = inspect.signature(thing).parameters.values()
    except ValueError:  # a builtin that does not tell
        return signatures.Signature(open=True)
    for p in listed:
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            params[p.name] = signatures.Param(required=p.default is p.empty, default_none=p.default is None)
    return signatures.Signature(params, open=any(p.kind == p.VAR_KEYWORD for p in listed))


# ---- building ------------------------------------------------------------------------------------------------------


def instantiate(
    node: Any, trusted: Collection[str] = (), takes: Slots = ANYWHERE, folder: Path | None = None, **extra: Any
) -> Any:
    """Build what a config node names.

    A dict with `_target_` becomes `target(**the rest, **extra)`, nodes inside it first; with `_partial_: true` it is a
    functools.partial. Other dicts and lists are walked through. Raises UserError for what `check` would refuse, and
    for a class that is not of a base that its place `takes`. Lightning's own classes write inside `folder`.
    """
    trusted = allowed.own_packages(trusted)
    if isinstance(node, list | tuple):
        return type(node)(instantiate(item, trusted, takes, folder) for item in node)
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {name: instantiate(value, trusted, takes, folder) for name, value in node.items()} | extra
    given_here = (*extra, *ROOTED) if folder else extra
    node = aliases.present({name: value for name, value in node.items() if name not in extra})
    params = _check_node(node, trusted, "", given_here, takes).params
    target = load(node["_target_"], trusted, takes)
    if folder and _kept_inside(node["_target_"], trusted, takes):
        wanted = [name for name in ROOTED if name in params and (node.get(name) or params[name].required)]
        node = node | {name: str(folder / (node.get(name) or "")) for name in wanted}
    arguments = _built(node, params, trusted, folder) | extra
    if node.get("_partial_"):
        return functools.partial(target, **arguments)
    if tuple(takes) == allowed.PLACES["stage"]:  # a stage is not built: it works, and its bugs are to be seen
        return target(**arguments)
    with one_line.building(one_line.shown(node["_target_"], arguments), trusted):
        return target(**arguments)


def instantiate_arguments(
    target: str, arguments: dict[str, Any], trusted: Collection[str] = (), folder: Path | None = None
) -> dict[str, Any]:
    """The arguments of a class that we name ourselves, converted and built: lightning.Trainer's."""
    check_arguments(target, arguments, trusted, "trainer")
    return _built(arguments, signature_of(target).params, trusted, folder)


def _built(
    node: dict[str, Any], params: dict[str, signatures.Param], trusted: Collection[str], folder: Path | None
) -> dict[str, Any]:
    arguments = {}
    for name, value in node.items():
        if name not in ("_target_", "_partial_"):
            typed = typecheck.convert(value, params[name]) if name in params else value
            arguments[name] = instantiate(typed, trusted, slots.slots_of(params.get(name)), folder)
    return arguments
