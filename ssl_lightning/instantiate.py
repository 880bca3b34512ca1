"""From a config node to an object: an allow-list of what may be named, and a check of every argument beforehand."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ssl_lightning import signatures, typecheck
from ssl_lightning.errors import UserError, did_you_mean

# A config from elsewhere must not be able to run any function of any package; `trusted_packages` adds the user's own.
# A name that ends in a dot allows everything below it; one without a dot allows itself alone.
ALLOWED = (
    "ssl_lightning.",
    "torch.nn.",
    "torch.optim.",
    "torchvision.models.",
    "torchvision.transforms.",
    "torchmetrics.",
    "lightning.Trainer",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.trainer.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.strategies.",
    "lightning.pytorch.profilers.",
    "timm.create_model",
    "timm.optim.",
)
# Our own machinery starts processes and reads files: it is not for a config to name.
REFUSED = tuple(
    f"ssl_lightning.{room}." for room in ("__main__", "build", "compose", "sweep", "trainers", "instantiate")
)


def allowed(target: str, trusted: Iterable[str] = ()) -> bool:
    """May a config name this? By the allow-list, or because its package is in `trusted_packages`."""
    names = (*ALLOWED, *(f"{package.rstrip('.')}." for package in trusted))
    listed = any(target.startswith(name) if name.endswith(".") else target == name for name in names)
    return listed and not target.startswith(REFUSED) and "__" not in target


def check(node: Any, trusted: Collection[str] = (), where: str = "", injected: Collection[str] = ()) -> None:
    """Raise a UserError for the first `_target_`, argument name or value in `node` that cannot be right.

    `where` is the node's place in the config ("method.loss"), for the message; `injected` are arguments that are
    passed at the top by the caller. Reads sources only: nothing heavy is imported.
    """
    if isinstance(node, list | tuple):
        for i, item in enumerate(node):
            check(item, trusted, f"{where}.{i}" if where else str(i))
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        check(value, trusted, f"{where}.{key}" if where else str(key))
    if "_target_" in node:
        _check_arguments(node, trusted, where, injected)


def _check_arguments(node: dict[str, Any], trusted: Collection[str], where: str, injected: Collection[str]) -> None:
    target = node["_target_"]
    at = f"{where}: " if where else ""
    if not isinstance(target, str) or not allowed(target, trusted):
        raise UserError(f"{at}'{target}' may not be named in a config.{_target_hint(str(target), trusted)}")
    _check_exists(target, trusted, at)
    signature = signature_of(target, trusted)
    for name, value in node.items():
        if name in ("_target_", "_partial_"):
            continue
        if not signature.accepts(name):
            hint = did_you_mean(name, signature.params) or f" It takes {', '.join(signature.params) or 'none'}."
            raise UserError(f"{at}{_short(target)} takes no argument '{name}'.{hint}")
        if name in signature.params:
            check_value(value, signature.params[name], f"{where}.{name}" if where else name)
    needed = [name for name, param in signature.params.items() if param.required]
    missing = [name for name in needed if name not in node and name not in injected]
    if missing and not node.get("_partial_"):
        raise UserError(
            f"{at}{_short(target)} needs '{missing[0]}'; add +{where + '.' if where else ''}{missing[0]}=..."
        )


def _short(target: str) -> str:
    return ".".join(target.split(".")[-2:])


def _check_exists(target: str, trusted: Collection[str], at: str) -> None:
    """Answer from the sources, before any import, what our own packages do not have and what is not theirs."""
    place = signatures.find(target)
    if place is not None and target not in ALLOWED and not allowed(f"{place[0]}.", trusted):
        raise UserError(f"{at}'{target}' lies in {place[0]}, which may not be named in a config.")
    module = target.rpartition(".")[0]
    while module and signatures.module_file(module) is None:
        module = module.rpartition(".")[0]
    if place is None and module.split(".")[0] == "ssl_lightning":
        name = target[len(module) + 1 :].split(".")[0]
        hint = did_you_mean(name, signatures.members(module))
        raise UserError(f"{at}'{target}' does not exist: no '{name}' in {module}.{hint}")


def check_value(value: Any, param: signatures.Param, where: str) -> None:
    """Raise a UserError where a value does not fit its argument's annotation."""
    try:
        typecheck.convert(value, param)
    except typecheck.Mismatch as mismatch:
        given = "null" if value is None else repr(value)
        raise UserError(
            f"{where} wants {mismatch}, not {given}.{did_you_mean(str(value), map(str, mismatch.choices))}"
        ) from None


def _target_hint(target: str, trusted: Collection[str]) -> str:
    package = target.split(".")[0]
    ours = [name for name in (*ALLOWED, *trusted) if name.split(".")[0] == package]
    if ours:
        return f" Of {package} these may: {', '.join(ours)}"
    hint = did_you_mean(package, {name.split(".")[0] for name in ALLOWED})
    return hint or f" To allow a package of your own: trusted_packages=[{package}]"


def signature_of(target: str, trusted: Collection[str] = ()) -> signatures.Signature:
    """The arguments of a class or function; from its source where that tells, else by importing it."""
    found = signatures.read(target)
    if found is not None:
        return found
    thing = load(target, trusted)
    params: dict[str, signatures.Param] = {}
    try:
        listed = inspect.signature(thing).parameters.values()
    except ValueError:  # a builtin that does not tell
        return signatures.Signature(open=True)
    for p in listed:
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            params[p.name] = signatures.Param(required=p.default is p.empty, default_none=p.default is None)
    return signatures.Signature(params, open=any(p.kind == p.VAR_KEYWORD for p in listed))


def _import(target: str) -> Callable[..., Any]:
    """The class or function of this dotted name, or a UserError with the nearest name there is."""
    parts = target.split(".")
    thing: Any = None
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            thing = importlib.import_module(module)
            break
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise UserError(f"{target} needs the package '{error.name}', which is not installed.") from error
    if thing is None:
        raise UserError(f"'{target}': there is no package '{parts[0]}'.")
    for name in parts[cut:]:
        if not hasattr(thing, name):
            raise UserError(f"'{target}' does not exist: no '{name}' in {module}.{did_you_mean(name, dir(thing))}")
        thing = getattr(thing, name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        raise UserError(f"'{target}' is neither a class nor a function.")
    return thing


def load(target: str, trusted: Collection[str] = ()) -> Callable[..., Any]:
    """Import an allowed class or function. A foreign one that an allowed module merely imported is refused too."""
    if not allowed(target, trusted):
        raise UserError(f"'{target}' may not be named in a config.{_target_hint(target, trusted)}")
    thing = _import(target)
    home = f"{thing.__module__}.{thing.__qualname__}"
    if target not in ALLOWED and not allowed(home.replace(".__init__", ""), trusted):
        raise UserError(f"'{target}' is {home}, which may not be named in a config.{_target_hint(home, trusted)}")
    return thing


def instantiate(node: Any, trusted: Collection[str] = (), **extra: Any) -> Any:
    """Build what a config node names.

    A dict with `_target_` becomes `target(**the rest, **extra)`, nodes inside it first; with `_partial_: true` it is a
    functools.partial. Other dicts and lists are walked through. Raises UserError for what `check` would refuse.
    """
    if isinstance(node, list | tuple):
        return type(node)(instantiate(item, trusted) for item in node)
    if not isinstance(node, dict):
        return node
    given = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return {name: instantiate(value, trusted) for name, value in given.items()} | extra
    _check_arguments(node, trusted, "", extra)
    target = load(node["_target_"], trusted)
    params = signature_of(node["_target_"], trusted).params
    typed = {name: typecheck.convert(v, params[name]) if name in params else v for name, v in given.items()}
    arguments = {name: instantiate(value, trusted) for name, value in typed.items()} | extra
    return functools.partial(target, **arguments) if node.get("_partial_") else target(**arguments)
