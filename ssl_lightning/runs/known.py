"""What a `ckpt=` says of itself, without loading any weights: the card of its network, the data of its run.

All of it may be somebody else's words: it is read as plain values, and nothing here is trusted or built.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.config import aliases, allowed
from ssl_lightning.core import plain_yaml, secrets
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import card, places
from ssl_lightning.runs.judged_node import judged_node
from ssl_lightning.runs.places import find_run

# What the network expects of an image, whatever the data.
OF_THE_NETWORK = (*card.INPUT, "in_channels")

# Of what a card says; `seconds` are of its files, and of data that are made those of each clip.
NO_KEYS_OF_DATA = ("backbone", "out_dim", "method", "data", "modality", "seconds")


def of_the_network(card: Mapping[str, Any], data: Iterable[str]) -> tuple[str, ...]:
    """The keys of a card that say how the network is fed: of another modality than images, all of them.

    None where `data`, the keys of the data as configured, lack some of the latter: these are of another kind, which is
    said later. So are data without `image_size` for a network of images.
    """
    if "image_size" in card and not card.get("modality") and "image_size" not in {*data}:
        return ()
    own = [key for key in card if key not in (*NO_KEYS_OF_DATA, *OF_THE_NETWORK)] if card.get("modality") else []
    return (*OF_THE_NETWORK, *own) if {*own} <= {*data} else ()


def fed_otherwise(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first key by which two cards say that their networks are fed otherwise; None of networks that are fed alike.

    Of another modality than images every key counts that is not of the network or its training.
    """
    keys = ["modality", *card.INPUT]
    if one.get("modality"):
        keys += [key for key in {**one, **other} if key not in (*NO_KEYS_OF_DATA, *OF_THE_NETWORK)]
    return next((key for key in keys if one.get(key) != other.get(key)), None)


@dataclass(frozen=True)
class Known:
    """What a `ckpt=` says: the network's card, the data of its run, and the options that were chosen there."""

    ref: str
    card: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)


def of(ref: str) -> Known | None:
    """What a `ckpt=` says of its network and data, without loading any weights; None where it says nothing.

    Raises UserError for a card or a config that cannot be read or is none.
    """
    if ref.startswith("timm:"):
        return Known(ref, _card_of_timm(ref.removeprefix("timm:")))
    if ref.startswith("torchvision:"):
        name = ref.removeprefix("torchvision:")
        node = {"_target_": "ssl_lightning.models.resnet.resnet", "name": name, "stem": "imagenet"}
        return Known(ref, {"backbone": node} if name.startswith("resnet") else {})
    try:
        path, run = Path(ref).expanduser(), find_run(ref)
        if not path.exists():
            return None  # said where it is to be loaded
    except (OSError, RuntimeError, ValueError):  # no name of a file
        return None
    files = (path / "backbone.safetensors", path / "model.safetensors") if path.is_dir() else (path,)
    file = next((file for file in files if file.is_file()), files[0])
    told = _card_in(file) if file.suffix == ".safetensors" and file.is_file() else None
    config: Any = aliases.resolved(plain_yaml.read(run / "config.yaml")) if run else None
    if not places.is_config(config):
        return Known(ref, told) if told else None
    data, choices = (dict(config[key]) if isinstance(config.get(key), dict) else {} for key in ("data", "choices"))
    node = config["backbone"] if isinstance(config.get("backbone"), dict) else {}
    if told is not None and told["backbone"].get("_target_") != node.get("_target_"):
        choices.pop("backbone", None)  # a stage's folder, whose weights are of another network than its config names
    if told is None and node:
        told = {
            "backbone": judged_node(config),
            **{key: data[key] for key in OF_THE_NETWORK if data.get(key) is not None},
        }
        told = card.described(told, f"{run}/config.yaml")
    return Known(ref, told or {}, data, choices)


def check_kept(ref: str | None, folder: Path) -> None:
    """Raise a UserError where `folder` is not to be moved aside for a run on this `ckpt=`: it is gone, or in there."""
    if not ref or ref.startswith(("timm:", "torchvision:")):
        return
    path = Path(ref).expanduser()
    if not path.exists():
        raise UserError(places.nowhere(path))
    if path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"ckpt={ref} lies in {folder}, which resume=never would move away; give this run another name=")


def _card_in(file: Path) -> dict[str, Any] | None:
    """The card in a safetensors file, read from the head of the file alone."""
    try:
        with open(file, "rb") as opened:
            length = struct.unpack("<Q", opened.read(8))[0]
            head = json.loads(opened.read(length)) if length <= 100_000_000 else {}
    except (OSError, ValueError, RecursionError, struct.error):
        return None  # said where it is to be loaded
    metadata = head.get("__metadata__") if isinstance(head, dict) else None
    told = metadata.get("card") if isinstance(metadata, dict) else None
    return card.parse(told, str(file)) if isinstance(told, str) else None


def _card_of_timm(name: str) -> dict[str, Any]:
    """The normalisation that timm's weights were trained with, and the size of a network that takes no other."""
    import timm

    node = {"_target_": card.TIMM, "name": name}
    try:
        found = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # no such weights, which is said where they are to be fetched
        found = None
    if found is None:
        return {"backbone": node}
    size = {"image_size": found.input_size[-1]} if found.fixed_input_size else {}
    return {"backbone": node, **size, "mean": list(found.mean), "std": list(found.std)}


def check_plain(value: Any, what: str, key: str) -> None:
    """A value that somebody may have written: no reference, no masked secret, nothing but plain values."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str) or not name.isprintable():
                raise UserError(f"{what} has a key that is not a word; give {key}=...")
            check_plain(item, what, key)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, what, key)
    elif isinstance(value, str):
        if "${" in value:
            raise UserError(f"{what} is {shown(value)}, a reference, which works only in a config; give {key}=...")
        if secrets.MASK in value:
            raise UserError(f"{what} was a secret, so it was not stored; give {key}=...")
        if not value.isprintable():
            raise UserError(f"{what} is {shown(value)}, which is not plain text; give {key}=...")
    elif not isinstance(value, int | float | bool | None):
        raise UserError(f"{what} is {shown(value)}, which is not a plain value; give {key}=...")


def shown(value: Any) -> str:
    """A value of somebody else's in a line, as it would stand on a command line."""
    return str(allowed.shown(value)).replace("'", "") if isinstance(value, str) else str(value)[:120]
