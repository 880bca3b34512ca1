"""Who picks the network and the views where the command line names none: the data, by what the method needs.

A method's yaml names those of images. The yaml of data of another modality says in `picks:` what is taken in their
place, and a method's yaml says in `needs:` what it needs. Both keys are read here and are no part of the config.

    needs: {backbone: tokens, views: one}                      # of a method; without it: vector, two
    picks:                                                     # of data
      backbone: {vector: audio_convnet, tokens: audio_transformer, map: audio_convnet}
      views: {one: audio_one, two: audio, local: audio_local}

What the command line chooses stands. So does what an experiment chooses, except views that are not made for such data:
those of another class than the views that would be picked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ssl_lightning.core.errors import UserError, did_you_mean

NEEDS, PICKS = "needs", "picks"
KEYS = (NEEDS, PICKS)
# What a method may need of each part; the first is what a method needs that does not say. Where the data name nothing
# for a need, what they name for the one behind the arrow will do: tokens also give features, and two views hold one.
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "backbone": {"vector": ("tokens", "map"), "tokens": (), "map": ("tokens",)},
    "views": {"two": (), "one": (), "local": ("two",)},
}

Chosen = Callable[[Sequence[str]], Mapping[str, Any]]  # the option of each group, of a command line


def added(typed: Sequence[Override], chosen: Chosen, repo: Any) -> list[str]:
    """The choices that belong to a command line though nobody typed them: `group=option` each; mostly none.

    Raises UserError where a yaml's `needs` or `picks` cannot be read, or where the data have nothing for the method.
    """
    single = {o.key_or_group: o for o in typed if not o.is_sweep_override()}
    if "data" in single and not _mapping(repo, "data", single["data"].value(), PICKS):
        return []
    words = [str(o.input_line) for key, o in single.items() if "." not in key and repo.group_exists(key)]
    found = chosen(words)
    picks = _mapping(repo, "data", found.get("data"), PICKS)
    if not picks:
        return []
    needs = _mapping(repo, "method", found.get("method"), NEEDS)
    return [
        f"{part}={option}"
        for part in KINDS
        if not any(o.key_or_group == part for o in typed)
        and (option := _option(part, picks, needs, found)) != found.get(part)
        and not _stands(part, option, words, chosen, found, repo)
    ]


def _option(part: str, picks: Mapping[str, Any], needs: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    kinds, offered = KINDS[part], picks.get(part, {})
    need = str(needs.get(part, next(iter(kinds))))
    for kind in (need, *kinds[need]):
        if kind in offered:
            return str(offered[kind])
    wanted = {"backbone": f"a network that gives {need}", "views": f"views of the kind '{need}'"}[part]
    raise UserError(
        f"method={found.get('method')} needs {wanted}, and data={found.get('data')} has no default; set {part}="
    )


def _stands(part: str, option: str, words: list[str], chosen: Chosen, found: Mapping[str, Any], repo: Any) -> bool:
    """Has an experiment chosen this part, and for such data?"""
    others = [word for word in words if not word.startswith("experiment=")]
    if len(others) == len(words) or chosen(others).get(part) == found.get(part):
        return False
    return part != "views" or _target(repo, part, found[part]) == _target(repo, part, option)


def _target(repo: Any, group: str, option: str) -> Any:
    config = _read(repo, group, option)
    return None if config is None else config.get("_target_")


def _read(repo: Any, group: str, option: Any) -> DictConfig | None:
    found = repo.load_config(f"{group}/{option}") if isinstance(option, str) else None
    return found.config if found is not None and isinstance(found.config, DictConfig) else None


def _mapping(repo: Any, group: str, option: Any, key: str) -> Mapping[str, Any]:
    """A yaml's `needs` or `picks` in plain values, checked."""
    config = _read(repo, group, option)
    if config is None or key not in config:
        return {}
    where, written = f"{group}/{option}", OmegaConf.to_container(config, resolve=False)
    assert isinstance(written, dict)
    value: Any = written[key]
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key} takes {', '.join(KINDS)}, not {value!r}")
    for part, said in value.items():
        if part not in KINDS:
            raise UserError(f"{where}: {key} has no '{part}'.{did_you_mean(str(part), KINDS)}")
        if key == PICKS and not isinstance(said, dict):
            raise UserError(f"{where}: {key}.{part} takes one option for each of ({', '.join(KINDS[part])})")
        for kind in said if key == PICKS else [said]:
            if kind not in KINDS[part]:
                hint = did_you_mean(str(kind), KINDS[part]) or f" There are: {', '.join(KINDS[part])}."
                raise UserError(f"{where}: {key}.{part} has no '{kind}'.{hint}")
            if key == PICKS and not repo.config_exists(f"{part}/{said[kind]}"):
                raise UserError(f"{where}: there is no {part}={said[kind]}")
    return value
