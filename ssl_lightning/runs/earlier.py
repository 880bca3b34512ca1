"""What a config said before: keys that came later, and values of published recipes that were corrected since.

A run goes on as it was begun. Where its stored config lacks a key that came later it had the constructor's default, and
where it has a published recipe's former value it keeps that; a command line that names the key itself is taken at its
word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Keys that came later, as patterns, with the value that was in force before (their default).
LATER: dict[str, Any] = {
    "data.eval_resize": None,
    "data.group": None,
    "data.held_out": None,
    "data.masks": None,
    "optimizer.decay_biases": False,
    "views.*.interpolation": "bilinear",
    "method.loss.form": "out",
    "method.decoder.eps": 1e-5,
    "method.predictor.eps": 1e-5,
    "method.projector.activation": "relu",
    "backbone.uniform_drop_path": False,
    "stage.probes": None,
    "stage.formats": ["safetensors"],  # of an export
    "stage.cutmix": 0.0,  # of fine-tuning, as those below
    "stage.drop_path": 0.0,
    "stage.patience": None,
    "stage.average": 0.0,
    "stage.train": "all",
    "stage.norm": "fresh",
    "stage.class_weights": "none",
    "stage.trainings": ["finetune", "from_scratch"],
    "stage.naive": True,
    "stage.cache": "auto",  # which changes no number
    "stage.probe.readouts": ["features"],
}
# Whole parts that came later, with what was in force before.
PARTS: dict[str, Any] = {"task": {"_target_": "ssl_lightning.tasks.classify.Classify"}}
# Of `experiment=`: keys with the value before and now. It is a run from before where its config lacks `SINCE`.
SINCE = "data.eval_resize"
CORRECTED: dict[str, dict[str, tuple[Any, Any]]] = {
    "imagenet/mae": {"trainer.max_epochs": (100, 1600), "scheduler.warmup_epochs": (10, 40)},
    "imagenet/ijepa": {"scheduler.warmup_start_lr": (3e-5, 2e-4)},
    "imagenet100/simclr": {"data.batch_size": (128, 256)},
    "imagenet100/moco": {"data.batch_size": (128, 256)},
}
ABSENT = object()
WITHIN = {"views": "data.views", "scheduler": "optimizer.scheduler"}  # where a part stands a second time, as a value


def as_begun(
    stored: Mapping[str, Any], config: Mapping[str, Any], overrides: Iterable[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """`config` with what a run whose config is `stored` was begun with, and what was put back, in words.

    `overrides`: the command line's own words.
    """
    typed = {word.lstrip("+~").partition("=")[0] for word in overrides}
    found: dict[str, Any] = dict(config)
    said: list[str] = []
    if not stored:
        return found, said
    for part, before in PARTS.items():
        if part not in stored and found.get(part) == before:
            found = _with(_with(found, part, ABSENT), f"choices.{part}", ABSENT)
    old = _get(stored, SINCE) is ABSENT
    for pattern, before in LATER.items():
        for key in _keys(found, pattern.split(".")):
            default = _get(found, key) == before
            absent = _get(stored, key) is ABSENT and _has_parent(stored, key)
            if absent and (default or (old and key not in typed)):
                found = _with(found, key, ABSENT)
                said += [] if default else [_word(key, before)]
    experiment = (stored.get("choices") or {}).get("experiment") if old else None
    for key, (before, now) in CORRECTED.get(str(experiment), {}).items():
        if key not in typed and _get(stored, key) == before and _get(found, key) == now:
            found = _with(found, key, before)
            said.append(_word(key, before))
    return found, said


def _word(key: str, value: Any) -> str:
    return f"{key}={'null' if value is None else value}"


def _keys(node: Any, pattern: list[str]) -> list[str]:
    """The dotted keys of a config that a pattern stands for; `*` is any word."""
    if not isinstance(node, Mapping):
        return []
    words = [str(key) for key in node if re.fullmatch(pattern[0].replace("*", r"\w+"), str(key))]
    if len(pattern) == 1:
        return words
    return [f"{word}.{rest}" for word in words for rest in _keys(node[word], pattern[1:])]


def _get(node: Any, key: str) -> Any:
    for word in key.split("."):
        if not isinstance(node, Mapping) or word not in node:
            return ABSENT
        node = node[word]
    return node


def _has_parent(node: Any, key: str) -> bool:
    return isinstance(_get(node, key.rpartition(".")[0]), Mapping)


def _with(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with another value at one key, or without it, wherever its part stands."""
    part, _, rest = key.partition(".")
    for place in (key, f"{WITHIN[part]}.{rest}") if part in WITHIN else (key,):
        if _get(config, place) is not ABSENT:
            config = _set(config, place.split("."), value)
    return config


def _set(node: Mapping[str, Any], words: list[str], value: Any) -> dict[str, Any]:
    first, rest = words[0], words[1:]
    if rest:
        return {**node, first: _set(node[first], rest, value)}
    return {key: old for key, old in node.items() if key != first} if value is ABSENT else {**node, first: value}
