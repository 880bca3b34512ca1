"""From the command line to one plain, resolved config; a wrong name is answered with the nearest right one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra import compose as hydra_compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from omegaconf.resolvers.oc import env

from ssl_lightning.cli import arguments_taken, config_loader, fitting, help, moved, references, retarget, slips, words
from ssl_lightning.config import aliases
from ssl_lightning.core import secrets
from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.runs import places
from ssl_lightning.runs.comparison import flatten

MAIN_GROUPS = tuple(name for name, _ in help.GROUPS)


@dataclass
class Settings:
    """The top-level keys: what a run is called, where it lies, how it begins. Its annotations are what is checked."""

    name: str | None = None
    runs_dir: str = "runs"
    seed: int = 0
    ckpt: str | None = None
    resume: Literal["auto", "must", "never"] = "auto"
    deterministic: bool | Literal["warn"] = False
    rank_timeout: float = 1800.0
    trusted_packages: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Config:
    """A composed run.

    `values`: every value, plain and resolved; `choices`: the option chosen in each group; `path`: the run's folder;
    `overrides`: the command line's own words; `shown`: the values without secrets; `said`: lines on what a `ckpt` gave;
    `refers`: from each key that is written as a reference, `${key}`, to the key that it refers to.
    """

    values: dict[str, Any]
    choices: dict[str, Any]
    path: Path
    overrides: tuple[str, ...] = ()
    shown: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    refers: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings(**{key: self.values[key] for key in Settings.__dataclass_fields__})

    def names(self, part: str) -> bool:
        """Does the command line itself choose or change this part?"""
        return any(re.match(rf"[+~]*{part}[.=@]", override) for override in self.overrides)

    @property
    def stored(self) -> dict[str, Any]:
        """What is written to the run's config.yaml and compared with it."""
        return self.shown | {"choices": self.choices}


@references.bounded()
def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> Config:
    """Compose and resolve a run's config. Raises UserError for whatever cannot be composed."""
    raw, said = compose_inherited(overrides, config_dir)
    choices = {group: choice for group, choice in raw.hydra.runtime.choices.items() if not group.startswith("hydra/")}
    node = OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"])
    try:
        with _masked_environment():
            named, runs_dir, ckpt = node.name, str(node.runs_dir), node.ckpt
    except OmegaConfBaseException as error:
        raise UserError(f"the config refers to a key that does not exist: {_first_line(error)}") from error
    for key, value in (("name", named), ("runs_dir", runs_dir)):
        if value != node[key]:
            raise UserError(f"{key} holds a secret, which would stand in the path of the run; give another {key}=")
    path, node.name = _place(named, runs_dir, ckpt, choices)
    return Config(
        _resolve(node, choices, config_dir), choices, path, tuple(overrides), _shown(node), said, references.told(node)
    )


@contextmanager
def _masked_environment() -> Iterator[None]:
    """`${oc.env:WANDB_API_KEY}` gives the mask here, and so does all that is made of it."""

    def masked(key: str, *default: Any) -> Any:
        value = env(key, *default)
        return secrets.MASK if value and secrets.is_secret(key) else value

    OmegaConf.register_new_resolver("oc.env", masked, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", env, replace=True)


def _shown(node: DictConfig) -> dict[str, Any]:
    """A config's values, resolved, as they may be written and printed: without any secret."""
    written = str(OmegaConf.to_container(node))
    secrets.remember_environment(re.findall(r"oc\.env:\s*['\"]?(\w+)", written))
    try:
        with _masked_environment():
            return secrets.mask(_resolve(node))
    except UserError:  # a resolver that cannot work on the mask
        return secrets.mask(_resolve(node))


def compose_inherited(overrides: Sequence[str], config_dir: Path | None = None) -> tuple[DictConfig, tuple[str, ...]]:
    """`compose_raw` with what a `ckpt=` knows and without what a typed class does not take, and the lines on both."""
    raw, said = _inherited(overrides, config_dir)
    if any(retarget.TYPED.fullmatch(word) for word in overrides):
        said = (*said, *retarget.left_out(raw, overrides))
    return raw, said


def _inherited(overrides: Sequence[str], config_dir: Path | None) -> tuple[DictConfig, tuple[str, ...]]:
    raw = None
    if not any(re.match(r"[+~]*ckpt=", word) for word in overrides):
        raw = compose_raw(overrides, config_dir)
        if not raw.get("ckpt"):
            return raw, ()
    from ssl_lightning.cli import inherit

    return inherit.composed(overrides, raw, lambda words: compose_raw(words, config_dir), _folder, config_dir)


def compose_raw(overrides: Sequence[str], config_dir: Path | None = None) -> DictConfig:
    """Hydra's composed config, `hydra` node included, interpolations still in place."""
    overrides = words.as_typed(overrides, config_dir)
    with config_loader.opened() as hydra:
        parsed = [_parse(override) for override in overrides]
        for override in parsed:
            moved.check(override.key_or_group)
        try:
            found = hydra_compose("config", config_loader.with_folder(overrides, config_dir), return_hydra_config=True)
            return _with_present_names(found)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            full = arguments_taken.added(parsed, hydra.config_loader.chosen)
            if full != overrides:  # once: with their "+" none is added again
                return compose_raw(full, config_dir)
            _diagnose(parsed, config_dir, hydra.config_loader.chosen)
            line = _first_line(error)
            if wrong := re.match(r"Error merging override (.*)", line):
                line = f"'{wrong[1]}' cannot take the place of what stands there; --cfg job shows it"
            raise UserError(line) from error


def _with_present_names(raw: DictConfig) -> DictConfig:
    """Former names of classes, from a user's yaml or command line, as those of today."""
    values = OmegaConf.to_container(OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"]))
    for place, name in aliases.old_targets(values).items():
        OmegaConf.update(raw, place, name)
    return raw


def _parse(override: str) -> Override:
    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except OverrideParseException as error:
        key = override.partition("=")[0]
        raise UserError(f"'{override}' cannot be read; put the value of {key} in quotes: {key}=\"'...'\"") from error


def _first_line(error: Exception) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.replace("To append to your config use", "").strip()


def _diagnose(overrides: Iterable[Override], config_dir: Path | None, chosen: dict[str, Any] | None) -> None:
    """Find the override that Hydra stumbled over and raise a UserError for it.

    `chosen`: the config that the choices alone give, where Hydra has got that far.
    """
    folders = (config_dir,) if config_dir else ()
    groups = help.groups(folders)
    good: list[str] = []  # the choices that stand, which decide what keys there are
    values: list[Override] = []
    for override in overrides:
        key = override.key_or_group
        if key not in groups and "/" not in key:
            values.append(override)
            continue
        if key not in groups:
            raise UserError(f"there is no group '{key}'.{did_you_mean(key, groups) or ' See --help.'}")
        _check_choice(override, folders)
        good.append(str(override.input_line))
    known = flatten(chosen if chosen is not None else _known(good, config_dir))
    places = sorted({".".join(key.split(".")[:n]) for key in known for n in range(1, key.count(".") + 2)} | set(groups))
    for override in values:
        key = override.key_or_group
        if override.is_sweep_override():
            text = override.input_line
            raise UserError(f"'{text}' names several values: add -m to run each, or write {key}=[...] for a list.")
        if key not in places and not override.is_add() and not override.is_force_add():
            hint = slips.hint(key, str(override.value()), places, folders) or nearest_key(key, places)
            raise UserError(f"there is no '{key}' in this config.{hint}")


def _check_choice(override: Override, folders: tuple[Path, ...]) -> None:
    group, options = override.key_or_group, help.options(override.key_or_group, folders)
    if override.is_sweep_override():
        several = f"; for all at once write {group}=[...]" if group == "logger" else ""
        raise UserError(f"'{override.input_line}' names several options: add -m to run each{several}.")
    value = override.value()
    for choice in value if isinstance(value, list) else [value]:
        if str(choice) not in options and not override.is_delete():
            hint = did_you_mean(str(choice), options) or f" There are: {', '.join(options)}."
            raise UserError(f"there is no {group}={'null' if choice is None else choice}.{hint}")


def _known(good: list[str], config_dir: Path | None) -> dict[str, Any]:
    """The config that the valid choices alone give; the default one where these do not compose either."""
    for overrides in (good, []):
        try:
            raw = hydra_compose("config", config_loader.with_folder(overrides, config_dir))
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
        found = OmegaConf.to_container(raw)
        assert isinstance(found, dict)
        return {str(key): value for key, value in found.items()}
    return {}


def nearest_key(key: str, places: Iterable[str]) -> str:
    """A hint at the place most like `key`: the whole dotted path, or its last word alone ("temperature")."""

    def likeness(place: str) -> float:
        whole = difflib.SequenceMatcher(None, key.lower(), place.lower()).ratio()
        if "." in key:
            return whole
        return max(whole, 0.98 * difflib.SequenceMatcher(None, key.lower(), place.rpartition(".")[2].lower()).ratio())

    def rank(place: str) -> tuple[float, int, int]:  # of equals, the method's own before the stage's, then the shorter
        group = place.split(".")[0]
        return likeness(place), -MAIN_GROUPS.index(group) if group in MAIN_GROUPS else 0, -len(place)

    best = max(places, key=rank, default="")
    return f" Did you mean '{best}'?" if best and likeness(best) > 0.6 else " --cfg job shows all that there is."


def _resolve(node: DictConfig, choices: Mapping[str, str] | None = None, folder: Path | None = None) -> dict[str, Any]:
    try:
        values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = re.search(r"full_key: (\S+)", str(error))
        place = key[1] if key else "a value"
        raise UserError(f"{place} has no default: give {place}=...") from error
    except OmegaConfBaseException as error:
        key = re.search(r"full_key: (\S+)", str(error))
        if choices and (line := fitting.lacking(error, choices, node.get("data"), folder)):  # views of images on sound
            raise UserError(line) from error
        place = f", asked for by {key[1]}" if key else ""
        raise UserError(f"the config refers to a key that does not exist: {_first_line(error)}{place}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _place(name: Any, runs_dir: str, ckpt: str | None, choices: dict[str, Any]) -> tuple[Path, str]:
    """(the run's folder, its name). A stage on a run writes into that run's folder unless a name is given."""
    places.check_text(runs_dir, "runs_dir")
    base = Path(runs_dir).expanduser()
    stage, data, method = choices.get("stage"), choices.get("data"), choices.get("method")
    end = f"-{choices['debug']}" if choices.get("debug") else ""
    run = _run_of(ckpt) if name is None and stage != "pretrain" else None
    if name is not None:
        name = str(name)
    elif run is not None:
        base, name = run, f"{stage}-{data}{end}"
    elif stage in ("pretrain", "compare"):
        name = f"{method}-{data}{end}" if stage == "pretrain" else f"{stage}{end}"
    else:  # weights from elsewhere, or none at all
        ckpt = secrets.hide(ckpt) if ckpt else None
        source = re.sub(r"[^\w.-]+", "-", Path(ckpt).stem if ckpt and ":" not in ckpt else ckpt or str(method))
        name = f"{stage}-{source}-{data}{end}"
    places.check_name(name)
    return places.inside(base, name), f"{run.name}/{name}" if run else name


def _folder(raw: DictConfig) -> Path:
    return _place(raw.name, str(raw.runs_dir), None, dict(raw.hydra.runtime.choices))[0]


def _run_of(ckpt: str | None) -> Path | None:
    """The run folder of ours that a `ckpt=` lies in, or None: a stage writes nothing beside weights from elsewhere."""
    return run if (run := places.find_run(ckpt)) and places.is_run(run) else None
