"""A run that was begun for so many epochs and is asked for more goes on: `trainer.max_epochs` raised under its name.

The stored config then says the new length, and under `extended` each earlier one with how the schedules go on from
there (`scheduler.extend`, see `optim.schedules.Plan`) and which results.json was that of the earlier end. Until the new
end is reached the run is not finished, and its old results and backbone stay where they are.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from ssl_lightning.config import signatures
from ssl_lightning.core.errors import UserError

KEY = "extended"
LENGTHS = ("max_epochs", "max_steps", "max_time")  # of `trainer`
DEFAULT = "stretch"
MEANING = {
    "stretch": "the schedules continue as in one run of the full length",
    "hold": "each schedule keeps the value of its last step",
    "rewarm": "the schedules start again, over the added steps",
}


def compared(stored: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both configs as they are to be compared: a length is no difference, nor is what decides nothing yet."""
    old, new = copy.deepcopy(dict(stored)), copy.deepcopy(dict(config))
    extended = entries(stored)
    apart = change(stored, config) != "same"
    for node in (old, new):
        scheduler = node.get("scheduler")
        if isinstance(scheduler, dict) and (apart or not extended):
            scheduler.pop("extend", None)
        if apart and isinstance(node.get("trainer"), dict):
            for key in LENGTHS:
                node["trainer"].pop(key, None)
        optimizer = node.get("optimizer")  # which holds the schedule once more
        if isinstance(optimizer, dict) and isinstance(optimizer.get("scheduler"), dict) and (apart or not extended):
            optimizer["scheduler"].pop("extend", None)
    return old, new


def change(stored: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """ "same", "longer", or "shorter" where any of the lengths is less; "same" for a stage that trains no method."""
    before, after = stored.get("trainer"), config.get("trainer")
    target = (config.get("stage") or {}).get("_target_")
    signature = signatures.read(target) if isinstance(target, str) else None
    if not isinstance(before, Mapping) or not isinstance(after, Mapping) or not signature:
        return "same"
    if "method" not in signature.params:
        return "same"
    pairs = [(number(key, before.get(key)), number(key, after.get(key))) for key in LENGTHS]
    if any(new < old for old, new in pairs):
        return "shorter"
    return "longer" if any(new > old for old, new in pairs) else "same"


def number(key: str, value: Any) -> float:
    """A length as a number: epochs, steps or seconds; without a limit inf."""
    try:
        if key != "max_time":
            return math.inf if value in (None, -1) else float(value)
        if isinstance(value, Mapping):
            return timedelta(**value).total_seconds()
        days, hours, minutes, seconds = (int(part) for part in str(value).split(":"))
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    except (TypeError, ValueError):
        return math.inf


def entries(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The earlier lengths that a stored config tells, oldest first."""
    found = stored.get(KEY)
    return [dict(entry) for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def told(config: Mapping[str, Any]) -> str:
    """A config's length in words."""
    trainer = config.get("trainer") or {}
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps")
    words = [f"{epochs} epoch{'s' * (epochs != 1)}"] if number("max_epochs", epochs) < math.inf else []
    words += [f"{steps} step{'s' * (steps != 1)}"] if number("max_steps", steps) < math.inf else []
    words += [f"max_time={trainer['max_time']}"] if trainer.get("max_time") else []
    return ", ".join(words) or "no end"


def way(config: Mapping[str, Any]) -> str:
    """How the schedules go on. Raises UserError where that would be at a rate of nothing."""
    scheduler = config.get("scheduler") or {}
    extend = str(scheduler.get("extend", DEFAULT))
    if extend == "hold" and scheduler.get("min_lr") == 0:
        raise UserError(
            "scheduler.extend=hold keeps the learning rate of the last step, which is 0 here, so nothing would be "
            "learned; set scheduler.extend=stretch or rewarm"
        )
    return extend


def hindrance(config: Mapping[str, Any]) -> str | None:
    """Why a run may not be made longer in this way, or None."""
    try:
        way(config)
    except UserError as error:
        return str(error)
    return None


def extended(stored: Mapping[str, Any], config: Mapping[str, Any], results: Path) -> dict[str, Any]:
    """The stored config with the length of `config`, and its own among the earlier ones."""
    trainer = dict(stored["trainer"])
    entry = {key: trainer.get(key) for key in LENGTHS} | {"extend": way(config), "results": digest(results)}
    new = {key: config["trainer"].get(key) for key in LENGTHS if key in config["trainer"]}
    changed = {**stored, "trainer": trainer | new, KEY: [*entries(stored), entry]}
    for key in ("scheduler", "optimizer"):
        if key in config:
            changed[key] = copy.deepcopy(config[key])
    return changed


def outrun(stored: Mapping[str, Any], results: Path) -> bool:
    """Are these the results of an earlier end, while the run goes on to another?"""
    found = entries(stored)
    return bool(found) and found[-1].get("results") == digest(results)


def back(stored: Mapping[str, Any], config: Mapping[str, Any], results: Path) -> bool:
    """Does the command ask for the length that the run had before, whose results are still there?"""
    found = entries(stored)
    if not found or not results.is_file() or not outrun(stored, results):
        return False
    return all(number(key, found[-1].get(key)) == number(key, config["trainer"].get(key)) for key in LENGTHS)


def digest(file: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def line(stored: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What is said when a run is made longer."""
    extend = way(config)
    others = ", ".join(name for name in MEANING if name != extend)
    default = " (the default)" if extend == DEFAULT else ""
    return (
        f"{told(stored)} -> {told(config)}: with scheduler.extend={extend}{default} {MEANING[extend]}; also: {others}"
    )
