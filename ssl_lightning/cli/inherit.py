"""What a config takes from its `ckpt=`: a stage that judges takes the data, sizes and normalisation of the run, a
training takes the network and the values that it expects of images. What the command line says itself wins, and where
it contradicts the card a line says so.

The run, the card and the names in them may be somebody else's: they are read as plain values, nothing of what they say
is trusted, no secret and no reference (`${...}`) comes from there, and what is taken passes the checks of any config.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ssl_lightning.cli import help
from ssl_lightning.config import allowed
from ssl_lightning.config import instantiate as building
from ssl_lightning.core import secrets
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import card, known, places

Compose = Callable[[list[str]], DictConfig]
Place = Callable[[DictConfig], Path]
# What belongs to the training or the machine and not to the images; `_target_` comes with the choice of the data.
NOT_OF_THE_IMAGES: tuple[str, ...] = ("views", "batch_size", "num_workers", "worker_timeout", "engine", "resident")
NOT_OF_THE_IMAGES += ("bank_size", "query_size")
FED = ("channels", "mean", "std", "value_range")  # what a training takes of the images from the network's card
TASK = "classify"  # the default
INSTEAD = {"label_fraction": "labels_per_class", "labels_per_class": "label_fraction"}  # one rules the other out
# Data that are downloaded into their root when absent; a root is taken from a run only where one of these lies.
FETCHED = {
    "ssl_lightning.modalities.image.sources.cifar.CIFAR10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "ssl_lightning.modalities.image.sources.cifar.CIFAR100": ("cifar-100-python", "cifar-100-python.tar.gz"),
    "ssl_lightning.modalities.image.sources.stl10.STL10": ("stl10_binary", "stl10_binary.tar.gz"),
}
OPTION_OF = {
    card.TIMM: "timm",
    "ssl_lightning.models.vit.ViT": "vit_tiny",
    "ssl_lightning.models.convnet.ConvNetSmall": "convnet_small",
    "ssl_lightning.models.transformer1d.Transformer1d": "transformer1d",
}


def composed(
    typed: Sequence[str], raw: DictConfig | None, compose: Compose, place: Place, config_dir: Path | None
) -> tuple[DictConfig, tuple[str, ...]]:
    """The config of a command line, with what its `ckpt=` knows, and the lines that say what was taken.

    `raw`: the config of all words where a yaml names the `ckpt`. `compose` gives the config of some words, `place` the
    folder of a config's run.
    """
    words = list(typed)
    look = raw if raw is not None else _look(words, compose)
    given = _parts_of(look)
    found = known.of(str(look.ckpt)) if look is not None and look.ckpt and given else None
    if look is None or found is None:
        raw = raw if raw is not None else compose(words)
        begun = _begun(raw, place) if "method" in given else None
        return _started(begun, words, raw, compose, place, config_dir) if begun else (raw, ())
    if "judged" in given:
        return _judged(found, words, look, compose, config_dir)
    return _started(found, words, look, compose, place, config_dir)


def _look(words: list[str], compose: Compose) -> DictConfig | None:
    """What is chosen, without the values: those of data that are still to be taken would be unknown keys."""
    chosen = r"[+~]*(hydra|((ckpt|stage|data|experiment|debug)(@[\w.]+)?=)|stage\._target_=)"
    try:
        return compose([word for word in words if re.match(chosen, word)])
    except UserError:  # told better for the whole command line
        return None


def _parts_of(look: DictConfig | None) -> frozenset[str]:
    """Which of "judged" and "method" the chosen stage asks for."""
    target = _plain(look, "stage").get("_target_") if look is not None else None
    if not isinstance(target, str) or not allowed.public(target):
        return frozenset()
    try:
        return frozenset({"judged", "method"} & building.signature_of(target).params.keys())
    except UserError:  # told by the check of the whole config
        return frozenset()


def _begun(raw: DictConfig, place: Place) -> known.Known | None:
    """Of a training that began with weights that are gone, and is to go on: what its own folder says of its network."""
    stored = places.config_of(place(raw))
    same = places.is_config(stored) and stored.get("ckpt") == str(raw.ckpt)
    return (
        known.Known(str(raw.ckpt), {"backbone": stored.get("backbone")}, {}, stored.get("choices") or {})
        if same
        else None
    )


# ---- a stage on a run -----------------------------------------------------------------------------------------------


def _judged(
    found: known.Known, words: list[str], look: DictConfig, compose: Compose, config_dir: Path | None
) -> tuple[DictConfig, tuple[str, ...]]:
    """Data, image size and normalisation of the run, where nobody has given others."""
    typed = _typed(words, "data")
    given, choice = _of_experiments(words, look, compose)
    chosen = "" in typed or choice
    name = found.choices.get("data") or found.card.get("data")
    taken: dict[str, Any] = {}
    inherits = not chosen and _is_option(name, "data", config_dir)
    asked = [f"data={name}", *words] if inherits else words
    task = _task_of(found, words, look, config_dir) if inherits and "labels" not in typed else None
    asked = [f"task={task}", *asked] if task else asked
    raw = compose(asked)
    if not found.data and asked != words and "root" not in typed and _plain(raw, "data").get("root", "") is None:
        raw = compose(words)  # a card knows the kind of its data, and not where they lie
        return raw, (*_sized(raw, found, typed, given), f"{_of(found)} learned from data={name}; this is on other data")
    mine = _plain(raw, "data")
    if not chosen and found.data:
        if found.data.get("_target_") != mine.get("_target_"):  # data of the user's own, whose yaml is not there
            kept = {key: value for key, value in mine.items() if key in (*NOT_OF_THE_IMAGES, "seed")}
            with open_dict(raw):
                raw.data = kept
                raw.hydra.runtime.choices.data = name if isinstance(name, str) else "unknown"
            mine, taken["_target_"] = kept, found.data.get("_target_")
        taken |= {key: found.data[key] for key in found.data if key not in (*NOT_OF_THE_IMAGES, "_target_")}
        if _typed(words, "seed") or "test_fraction" not in {**mine, **taken}:  # else it says which images are held out
            taken.pop("seed", None)
        for key, other in INSTEAD.items():
            if key in typed:
                taken.pop(other, None)
        fetched = _without_root(taken, {**mine, **taken}, found) if "root" not in typed else ()
        same = (f"as in {_of(found)}: task={task}",) if task else ()
        return raw, (*same, *_sized(raw, found, typed, given, taken), *fetched)
    return raw, _sized(raw, found, typed, given)


def _task_of(found: known.Known, words: list[str], look: DictConfig, config_dir: Path | None) -> str | None:
    """What the labels of the run mean, where nobody has said it and the stage reads labels; None for the default."""
    name, reads = found.choices.get("task"), "task" in building.signature_of(look.stage._target_).params
    said = "" in _typed(words, "task") or look.hydra.runtime.choices.get("task") != TASK
    return str(name) if reads and not said and name != TASK and _is_option(name, "task", config_dir) else None


def _sized(
    raw: DictConfig, found: known.Known, typed: set[str], given: set[str], taken: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Set what is taken and what the network expects, where nobody has given another; returns the lines on it."""
    there = {*_plain(raw, "data"), *(taken or {})}
    fed = known.of_the_network(found.card, there)
    named = [key for key in fed if key in found.card and key in there and key != "value_range"]
    taken = {**(taken or {}), **{key: found.card[key] for key in named}}  # the range: `stages.common.same_images`
    wanted = {key: value for key, value in taken.items() if key not in typed and key not in given}
    said = _put(raw, "data", wanted, found)
    return (*said, *_contradictions(raw, found, taken.keys() - wanted.keys()))


def _without_root(taken: dict[str, Any], node: Mapping[str, Any], found: known.Known) -> tuple[str, ...]:
    """Takes no root into which data would be downloaded: what is not there lies where this machine keeps its data."""
    files, root = FETCHED.get(str(node.get("_target_"))), taken.get("root")
    if not files or root is None:
        return ()
    try:
        if isinstance(root, str) and any((Path(root).expanduser() / file).exists() for file in files):
            return ()
    except (OSError, RuntimeError, ValueError):  # no such user, no name of a file
        pass
    del taken["root"]
    return (f"{_of(found)} had its data in {known.shown(root)}, which is not here; set data.root= if elsewhere",)


def _contradictions(raw: DictConfig, found: known.Known, keys: Iterable[str]) -> tuple[str, ...]:
    """A line for what the command line says of the images against what the network was trained with."""
    told = {**found.data, **found.card}
    now = _plain(raw, "data", resolve=True)
    keys = {*keys} & {*known.of_the_network(found.card, now)}
    if "test_fraction" in now and now.get("root") == found.data.get("root"):
        keys |= {"seed", "test_fraction"}  # which images are held out
    other = [
        f"data.{key}={known.shown(now[key])} ({known.shown(told[key])} there)"
        for key in sorted(keys & told.keys() & now.keys())
        if not _same(now[key], told[key]) and (key != "value_range" or now[key] is not None)
    ]
    return (f"not as {_of(found)} was trained: {', '.join(other)}",) if other else ()


# ---- a training from weights ----------------------------------------------------------------------------------------


def _started(
    found: known.Known, words: list[str], look: DictConfig, compose: Compose, place: Place, config_dir: Path | None
) -> tuple[DictConfig, tuple[str, ...]]:
    """The network of the card, at the size of this command's images, unless `backbone=` chooses one."""
    typed, node = _typed(words, "backbone"), found.card.get("backbone")
    if not isinstance(node, dict) or "" in typed:
        raw = compose(words)
        return raw, _fed(raw, found, words, look, compose, place)
    node = {key: value for key, value in node.items() if key not in ("pretrained", "weights")}
    option = found.choices.get("backbone")
    if not _is_option(option, "backbone", config_dir):
        target = str(node.get("_target_"))
        option = OPTION_OF.get(target, node.get("name") if target.endswith("resnet.resnet") else None)
    if _is_option(option, "backbone", config_dir):
        words = [f"backbone={option}", *words]
    raw = compose(words)
    mine = _plain(raw, "backbone")
    same = mine.get("_target_") == node.get("_target_")
    kept = {k: v for k, v in mine.items() if k in typed or (same and k in ("image_size", "pretrained"))}
    if "image_size" in node and "image_size" not in kept:
        kept["image_size"] = "${data.image_size}"
    with open_dict(raw):
        raw.backbone = kept
    _put(raw, "backbone", {key: value for key, value in node.items() if key not in kept}, found)
    trusted = OmegaConf.to_container(raw).get("trusted_packages")  # type: ignore[union-attr]
    packages = trusted if isinstance(trusted, list | str) else []
    card.check_node(_plain(raw, "backbone", resolve=True), packages, f"the card of {_of(found)}")
    return raw, _fed(raw, found, words, look, compose, place)


def _fed(
    raw: DictConfig, found: known.Known, words: list[str], look: DictConfig, compose: Compose, place: Place
) -> tuple[str, ...]:
    """The data are those of the command, with the channels and values that the weights know, unless it gives others.

    A run that was begun before goes on with its own.
    """
    stored, there = places.config_of(place(raw)), _plain(raw, "data", resolve=True)
    begun = places.is_config(stored) and stored.get("ckpt") == str(raw.ckpt) and raw.get("resume") != "never"
    told = stored.get("data") if begun else found.card
    told = told if isinstance(told, dict) else {}
    given = _typed(words, "data") | _of_experiments(words, look, compose)[0]
    taken = {key: told[key] for key in FED if key in told and key in there and key not in given}
    if not begun and {**there, **taken}.get("channels", 3) != found.card.get("channels", 3):
        taken = {}  # other images, which the network itself refuses
    said = _put(raw, "data", taken, found)
    return (*said, *_contradictions(raw, found, FED))


# ---- small things ---------------------------------------------------------------------------------------------------


def _typed(words: Iterable[str], part: str) -> set[str]:
    """The keys of a part that the command line sets: "" for the part itself (`data=folder`), else the first word."""
    found = (re.match(rf"[+~]*{part}(?:@[\w.]+)?(?:\.([\w-]+)[\w.-]*)?(?:=|$)", word) for word in words)
    return {match[1] or "" for match in found if match}


def _of_experiments(words: list[str], look: DictConfig, compose: Compose) -> tuple[set[str], bool]:
    """(keys of data that experiments and debug options on the command line set, whether they choose the data)."""
    if not (_typed(words, "experiment") | _typed(words, "debug")):
        return set(), False
    now, choice = _plain(look, "data"), str(look.hydra.runtime.choices.data)
    plain = _plain(compose([f"data={choice}"]), "data")
    keys = {key for key in now if key not in plain or now[key] != plain[key]}
    return keys, choice != str(compose([]).hydra.runtime.choices.data)


def _is_option(name: Any, group: str, config_dir: Path | None) -> bool:
    folders = (config_dir,) if config_dir else ()
    return isinstance(name, str) and re.fullmatch(r"[\w-]+", name) is not None and name in help.options(group, folders)


def _plain(raw: DictConfig, part: str, resolve: bool = False) -> dict[str, Any]:
    """A part as a mapping; what cannot be resolved stays as it is written."""
    node = raw.get(part)
    if not isinstance(node, DictConfig):
        return {}
    try:
        found = OmegaConf.to_container(node, resolve=resolve)
    except OmegaConfBaseException:
        found = OmegaConf.to_container(node)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _of(found: known.Known) -> str:
    return secrets.hide(found.ref)


def _put(raw: DictConfig, part: str, values: Mapping[str, Any], found: known.Known) -> tuple[str, ...]:
    """Set plain values in a part of the config; returns the line that says which of them were others before."""
    changed: list[str] = []
    before = _plain(raw, part, resolve=True) if values else {}
    for key, value in values.items():
        if not isinstance(key, str) or not key.isprintable():
            raise UserError(f"{part} of {_of(found)} has a key that is not a word")
        known.check_plain(value, f"{part}.{key} of {_of(found)}", f"{part}.{key}")
        if key in before and _same(before[key], value):
            continue
        with open_dict(raw):
            raw[part][key] = value
        changed.append(f"{part}.{key}={known.shown(value)}")
    return (f"as in {_of(found)}: {', '.join(changed)}",) if changed else ()


def _same(one: Any, other: Any) -> bool:
    pair = [list(value) if isinstance(value, list | tuple) else value for value in (one, other)]
    return bool(pair[0] == pair[1])
