"""When are two commands the same run? Their configs are compared key by key, after defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ssl_lightning.config import signatures
from ssl_lightning.runs import devices, extension

# What may differ between two commands on the same run: none of it alters the weights or the verdict.
FREE = (
    "name",
    "runs_dir",
    "resume",
    "trusted_packages",
    "choices",
    devices.KEPT,
    "logger",
    "callbacks.progress",
    "callbacks.page",
    "data.num_workers",
    "data.worker_timeout",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "rank_timeout",
    "recipe",  # of older runs: what it decided stands in the values that took it
)


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; lists stay whole."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node} if prefix else {}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides the result, flattened."""
    found = {k: v for k, v in flatten(config).items() if not any(k == f or k.startswith(f"{f}.") for f in FREE)}
    if isinstance(
        found.get("extended"), list
    ):  # of each earlier end its lengths, not its results.json, which has times
        found["extended"] = [{k: v for k, v in entry.items() if k != "results"} for entry in found["extended"]]
    return found


def fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the result."""
    return hashlib.sha256(json.dumps(decisive(config), sort_keys=True, default=str).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Key by key, `data.batch_size: 128 -> 256`, over what decides the result; a whole part as one.

    A key that one of the two lacks has the default of the constructor there: an argument that came later, or that a
    yaml has ceased to repeat, does not make it another run.
    """
    found, default = [], _defaults(old, new, prefix)
    for key in sorted(old.keys() | new.keys()):
        place = f"{prefix}{key}"
        if place in FREE or place == extension.KEY:
            continue
        before, after = old.get(key, "(absent)"), new.get(key, "(absent)")
        if before == after or (key in default and default[key] == (after if key in new else before)):
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{place}.")
        else:
            found.append(f"{place}: {_short(before)} -> {_short(after)}")
    return found


def _defaults(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What the constructor of this part has for the keys that one of the two lacks, as a config has it."""
    target = {"": "ssl_lightning.cli.compose.Settings", "trainer.": "lightning.Trainer"}.get(
        prefix, new.get("_target_")
    )
    absent = old.keys() ^ new.keys()
    if not absent or not isinstance(target, str) or (prefix not in ("", "trainer.") and old.get("_target_") != target):
        return {}
    signature = signatures.read(target)
    params = signature.params if signature else {}
    found = {key: params[key].default_value() for key in absent if key in params}
    return {key: list(value[0]) if isinstance(value[0], tuple) else value[0] for key, value in found.items() if value}


def with_seed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config with the run's seed for a method that was not handed it when that run began."""
    method = old.get("method")
    if not isinstance(method, Mapping) or "seed" in method or "seed" not in (new.get("method") or {}):
        return dict(old)
    return {**old, "method": {**method, "seed": old.get("seed")}}


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("_target_", "{...}")).rsplit(".", 1)[-1]
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
