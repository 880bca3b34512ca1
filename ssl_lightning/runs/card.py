"""What a stored card may say: one of our own encoders, or a class of a package that the user trusts, with plain values.

A card is JSON inside a weights file, or the config of a run: somebody else may have written it. It may name no more
than `ENCODERS`; every other word of a config (losses, callbacks, optimizers) is no backbone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ssl_lightning.config import aliases, allowed
from ssl_lightning.config.allowed import MODULE, TIMM_ARGUMENTS, shown
from ssl_lightning.config.instantiate import check, instantiate
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.judged_node import IN_CONTEXT

TIMM = "ssl_lightning.models.timm.timm_backbone"
ENCODERS = (
    "ssl_lightning.models.convnet.ConvNetSmall",
    "ssl_lightning.models.vit.ViT",
    "ssl_lightning.models.vit_mel.MelViT",
    "ssl_lightning.models.transformer1d.Transformer1d",
    "ssl_lightning.models.resnet.resnet",
    "ssl_lightning.models.audio.MelConvNet",
    "ssl_lightning.models.audio.WaveConvNet",
    TIMM,
)
# What such an encoder may be read through, beside a class of the user's own.
CONTEXTS = tuple(f"ssl_lightning.models.context.{name}" for name in ("RowContext", "GRUContext", "TransformerContext"))
TIMM_OURS = ("_target_", "name", "image_size", "pretrained", "in_channels")
NODE = ("_target_", "_partial_")
# What decides how an image becomes the network's input, by the names of the data's arguments; `None` is left out.
INPUT = ("image_size", "eval_resize", "mean", "std", "channels", "value_range")
MOST_BYTES, MOST_VALUES, DEEPEST = 100_000, 2_000, 8
LARGEST = 1_000_000  # of a number; a backbone's sizes are in the thousands


def parse(text: str, ref: str) -> dict[str, Any]:
    """The card in a weights file. Raises UserError where this is no card at all; `checked` judges what it says."""
    if len(text) > MOST_BYTES:
        raise UserError(f"the card in {ref} is {len(text)} characters long; export the backbone again")
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the card in {ref} is not JSON; export the backbone again") from error
    return described(card, ref)


def described(card: Any, ref: str) -> dict[str, Any]:
    """A card that says which backbone it is of, with plain values around it; former names of classes are today's."""
    if not isinstance(card, dict) or not isinstance(card.get("backbone"), dict):
        raise UserError(f"the card in {ref} does not say which backbone it is of; export the backbone again")
    _check_plain(card, f"the card in {ref}")
    for name in ("method", "data"):
        if not isinstance(card.get(name) or "", str) or not str(card.get(name) or "").isprintable():
            raise UserError(f"the card in {ref} has a {name} that is not a plain name: {shown(card[name])}")
    modality = card.get("modality")
    if modality is not None and not (isinstance(modality, str) and modality.isidentifier()):
        raise UserError(f"the card in {ref} has a modality that is not a word: {shown(modality)}")
    for name in ("image_size", "eval_resize", "channels"):
        size = card.get(name)
        if size is not None and not (isinstance(size, int) and not isinstance(size, bool) and 0 < size <= 10_000):
            what = "a number of channels" if name == "channels" else f"an {name}"
            raise UserError(f"the card in {ref} has {what} that is not valid: {shown(size)}")
    for name in ("mean", "std", "value_range"):
        values = card.get(name)
        if values is not None and not (isinstance(values, list | tuple) and all(map(_is_number, values))):
            raise UserError(f"the card in {ref} has a {name} that is not a list of numbers: {shown(values)}")
    found: dict[str, Any] = aliases.resolved(card)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_plain(value: Any, what: str, depth: int = 0, seen: int = 0) -> int:
    """Numbers, texts, truths, lists and mappings of these, and not too many; returns how many were seen."""
    seen += 1
    if depth > DEEPEST or seen > MOST_VALUES:
        raise UserError(f"{what} is nested too deeply or too long; export the backbone again")
    if isinstance(value, dict):
        if not all(isinstance(key, str) and key.isprintable() for key in value):
            raise UserError(f"{what} has a key that is not a word; export the backbone again")
        for item in value.values():
            seen = _check_plain(item, what, depth + 1, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            seen = _check_plain(item, what, depth + 1, seen)
    elif not isinstance(value, str | int | float | bool | None):
        raise UserError(f"{what} holds {shown(value)}, which is not a plain value")
    return seen


def backbone_of(card: Mapping[str, Any], trusted: Iterable[str] = (), ref: str = "the checkpoint") -> Any:
    """Build the backbone of a card, with random weights. Raises UserError for anything but a plain, known encoder."""
    trusted = allowed.own_packages(trusted)
    node = described(dict(card), ref)["backbone"]
    _check_node(node, trusted, f"the card of {ref}")
    try:
        check(node, trusted, "backbone", takes=(MODULE,))
        return instantiate(node, trusted, takes=(MODULE,))
    except UserError as error:
        raise UserError(f"the card of {ref}: {error}") from error
    except Exception as error:  # sizes that do not go together fail inside the network in a dozen ways
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"the card of {ref} describes no backbone that can be built: {why}") from error


def check_node(node: Mapping[str, Any], trusted: Iterable[str], what: str) -> None:
    """Raise a UserError unless this is a plain, known encoder, or one of a package that the user trusts."""
    _check_node(node, allowed.own_packages(trusted), what)


def task_of(node: Any, trusted: Iterable[str], ref: str) -> Any:
    """Build the task that a model's file names. Raises UserError for anything but a task of ours or a trusted one's."""
    trusted = allowed.own_packages(trusted)
    what = f"the model in {ref}"
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise UserError(f"{what} does not say what its labels mean; train it again")
    target, own = _named(node, trusted)
    if not own and not allowed.listed(target, (allowed.TASK,)):
        raise UserError(f"{what} names {shown(target)}, which is no task of ours{_flag(target)}")
    for name, value in node.items():
        if name != "_target_" and name.startswith("_"):
            raise UserError(f"{what} has {shown(name)}; only plain arguments may be there")
        _check_value(value, trusted if own else (), f"{what}: {name}")
    try:
        check(node, trusted, "task", takes=(allowed.TASK,))
        return instantiate(node, trusted, takes=(allowed.TASK,))
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


def check_plain(value: Any, what: str) -> None:
    """Raise a UserError unless this is made of plain values alone, and of not too many."""
    _check_plain(value, what)


@contextmanager
def no_larger(tensors: int, numbers: int) -> Iterator[None]:
    """Refuses a network that needs far more than the weights that came with its card: it would fill the memory.

    Told as each parameter is made, before anything is written into it. Some networks make a classifier that they then
    leave out, so up to twice as much may be made, and a little more.
    """
    from torch.nn.modules import module

    most, left = (2 * tensors + 1_000, 2 * numbers + 50_000_000), {"tensors": 0, "numbers": 0}

    def count(owner: Any, name: str, parameter: Any) -> None:
        left["tensors"] += 1
        left["numbers"] += parameter.numel() if parameter is not None and not is_lazy(parameter) else 0
        if left["tensors"] > most[0] or left["numbers"] > most[1]:
            raise UserError("the network is much larger than the weights; choose the backbone they were trained with")

    is_lazy = module.torch.nn.parameter.is_lazy
    hook = module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _check_node(node: Mapping[str, Any], trusted: tuple[str, ...], what: str) -> None:
    if node.get("_target_") == IN_CONTEXT:
        _check_in_context(node, trusted, what)
        return
    target, own = _named(node, trusted)
    if not own and target not in ENCODERS:
        raise UserError(f"{what} names {shown(target)}, which is no encoder of ours{_flag(target)}")
    for name, value in node.items():
        if name == "_target_":
            continue
        if name.startswith("_"):
            raise UserError(f"{what} has {shown(name)}; only plain arguments may be there")
        _check_value(value, trusted if own else (), f"{what}: {name}")
    if target == TIMM:
        _check_timm(node, what)


def _named(node: Mapping[str, Any], trusted: tuple[str, ...]) -> tuple[Any, bool]:
    """The class that a node names, and whether it is one of the user's own."""
    target = node.get("_target_")
    module = target.rpartition(".")[0] if isinstance(target, str) else ""
    return target, allowed.public(target) and bool(module) and allowed.trusts(module, trusted)


def _check_in_context(node: Mapping[str, Any], trusted: tuple[str, ...], what: str) -> None:
    """An encoder as any other, and a context network that is made with its width and plain values."""
    encoder, context = node.get("encoder"), node.get("context")
    if (
        set(node) != {"_target_", "encoder", "context"}
        or not isinstance(encoder, dict)
        or not isinstance(context, dict)
    ):
        raise UserError(f"{what} must have an encoder and a context, and nothing else")
    if encoder.get("_target_") == IN_CONTEXT:
        raise UserError(f"{what} has one context within another; export the backbone again")
    _check_node(encoder, trusted, what)
    target, own = _named(context, trusted)
    if not own and target not in CONTEXTS:
        raise UserError(f"{what} names {shown(target)}, which is no context network of ours{_flag(target)}")
    for name, value in context.items():
        if name.startswith("_") and name not in NODE:
            raise UserError(f"{what} has {shown(name)}; only plain arguments may be there")
        if name not in NODE:
            _check_value(value, trusted if own else (), f"{what}: {name}")


def _flag(target: Any) -> str:
    """How to trust a class of one's own; well-known packages cannot be trusted."""
    package = target.split(".")[0] if allowed.public(target) else ""
    if not package or "." not in target:
        return ""
    if allowed.never_trusted(package):
        return f"; classes of {package} cannot be named in a card"
    return f"; if you trust that code: trusted_packages=[{package}], in Python trusted=('{package}',)"


def _check_value(value: Any, trusted: tuple[str, ...], what: str) -> None:
    """A plain value. Only a user's own class may hold nodes: modules, of the user's own or of a plain kind."""
    target = value.get("_target_") if isinstance(value, dict) else None
    if trusted and target is not None and not allowed.listed(str(target), (MODULE,), trusted):
        raise UserError(f"{what} names {shown(target)}, which is no module of {', '.join(trusted)}")
    for item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(item[0], str) and item[0].startswith("_") and not (trusted and item[0] in NODE):
            raise UserError(f"{what} has {shown(item[0])}; only plain values may be there")
        _check_value(item[1], trusted, what)
    if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= LARGEST:
        raise UserError(f"{what} is {shown(value)}, which is not a size of a network")


def _check_timm(node: Mapping[str, Any], what: str) -> None:
    """Nothing is fetched or read for a card: its weights are in the file."""
    if node.get("pretrained") not in (None, False):
        raise UserError(f"{what} asks for pretrained weights, but those are in the file; export the backbone again")
    unknown = [name for name in node if name not in (*TIMM_ARGUMENTS, *TIMM_OURS)]
    if unknown:
        raise UserError(f"{what} gives timm '{unknown[0]}', which a card may not: only sizes and kinds of layers")
