"""What is typed is used or refused: a key of a part that the chosen stage does not build is named, with the way out.

What a yaml brings is another matter: an experiment is the same for every stage. What a stage builds and reads is told
by its own source (`reading.py`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lightning import allowed, places, reading, signatures
from ssl_lightning.comparison import FREE
from ssl_lightning.errors import UserError

ON_DEVICE = ("accelerator", "devices", "num_nodes", "strategy", "plugins")  # of `trainer`: where a stage computes
ALWAYS = ("progress", "interrupt")  # callbacks that a stage's own list does not replace (`trainers.py`)
LEARNT = {"value_range"}  # of the data: what they find out of their images where nothing is typed
DRAWS_VIEWS = {"views", "train_dataloader"}  # of the data
QUIET = tuple(key for key in FREE if key.startswith(("trainer.", "data.", "callbacks.")))  # show; they decide nothing


@dataclass(frozen=True)
class Built:
    """What a stage reads of each group: keys, None for all of them; a group that is absent is not built."""

    keys: dict[str, frozenset[str] | None]
    unread: dict[str, frozenset[str]]  # keys that the stage sets itself, whatever is typed

    def reads(self, group: str, key: str) -> bool:
        """Is the first word below the group read; for "" the group itself?"""
        if group not in self.keys:
            return False
        known = self.keys[group]
        return not key or (key not in self.unread.get(group, ()) and (known is None or key in known))


def built(target: str, data: str | None = None) -> Built:
    """What the stage of this dotted name reads; `data`: the class of the data."""
    signature = signatures.read(target)
    params = signature.params if signature else {}
    keys: dict[str, frozenset[str] | None] = {}
    unread: dict[str, frozenset[str]] = {}
    if "method" in params:
        keys |= dict.fromkeys(("method", "backbone", "optimizer", "scheduler"))
    if "judged" in params:
        keys["backbone"] = None
    if "data" in params:
        keys |= _of_data(reading.reads(target, "data"), data)
    if "trainer" in params:
        keys |= _of_trainer(reading.reads(target, "trainer"), unread)
    return Built(keys, unread)


def _of_data(found: reading.Reads, data: str | None) -> dict[str, frozenset[str] | None]:
    signature = signatures.read(data) if data else None
    known = signature.params.keys() if signature else set()
    attributes = found.attributes - (LEARNT - known)
    plain = not found.whole and attributes <= known
    keys: dict[str, frozenset[str] | None] = {"data": frozenset(attributes) if plain else None}
    return keys | ({"views": None} if found.whole or found.attributes & DRAWS_VIEWS else {})


def _of_trainer(found: reading.Reads, unread: dict[str, frozenset[str]]) -> dict[str, frozenset[str] | None]:
    """Without callbacks a trainer only tells the device; one that fits has callbacks of its own, or the configured."""
    fits = [call for call in found.calls if not _empty(call.get("callbacks"))]
    if not fits and not found.whole:
        return {"trainer": frozenset(ON_DEVICE)}
    if found.whole:
        return dict.fromkeys(("trainer", "callbacks", "logger"))
    unread["trainer"] = frozenset.intersection(*(frozenset(call) for call in fits))
    own = all("callbacks" in call for call in fits)
    keys: dict[str, frozenset[str] | None] = {"trainer": None, "callbacks": frozenset(ALWAYS) if own else None}
    return keys | ({"logger": None} if any("logger" not in call for call in fits) else {})


def _empty(node: ast.expr | None) -> bool:
    return isinstance(node, ast.List) and not node.elts


def check(words: Iterable[str], values: dict[str, Any], choices: dict[str, Any]) -> None:
    """Raise a UserError for the first word of the command line that the stage would not read."""
    node = values.get("stage") or {}
    target = str(node.get("_target_"))
    if target not in allowed.STAGE.functions:
        return  # a user's own: what it does is theirs to say
    has, stage = built(target, (values.get("data") or {}).get("_target_")), str(choices.get("stage"))
    for word in words:
        key = re.match(r"[+~]*([\w/@.-]*)", word)
        place = key[1].replace("/", ".").partition("@")[0] if key else ""
        group, _, rest = place.partition(".")
        if group == "method" and not rest and "method" not in has.keys and "@" not in word:
            _check_method(word, values.get("ckpt"), str(choices.get("method")), stage)
        elif group in _GROUPS and not has.reads(group, rest.partition(".")[0]) and not _quiet(place):
            raise UserError(f"'{word}': stage={stage} {_why(group, rest, has)}; leave it out{_instead(place, node)}")
        elif place == "deterministic" and "trainer" not in has.keys:
            raise UserError(f"'{word}': stage={stage} {_WHY['trainer']}; leave it out")


def _quiet(place: str) -> bool:
    return any(place == key or place.startswith(f"{key}.") for key in QUIET)


_WHY = {
    "method": "trains no method",
    "optimizer": "trains no method, and takes no optimizer from here",
    "scheduler": "trains no method, and takes no schedule from here",
    "views": "draws no training views",
    "callbacks": "trains nothing that callbacks could watch",
    "logger": "writes no curves",
    "trainer": "uses no trainer",
    "data": "looks at no image",
    "backbone": "builds no backbone",
}
_GROUPS = frozenset(_WHY)


def _why(group: str, rest: str, has: Built) -> str:
    key = rest.partition(".")[0]
    if group in has.keys and key:
        known = has.keys[group]
        if key in has.unread.get(group, ()):
            return f"sets {group}.{key} itself"
        if group == "callbacks":
            return "has callbacks of its own"
        return f"reads of {group} only {', '.join(sorted(known or ()))}"
    return _WHY[group]


def _instead(place: str, node: dict[str, Any]) -> str:
    """The stage's own argument of that name, or of that name without `max_`."""
    last = place.rpartition(".")[2]
    found = next((name for name in (last, last.removeprefix("max_")) if name in node and "." in place), None)
    return f", or give stage.{found}" if found else ""


def _check_method(word: str, ckpt: Any, asked: str, stage: str) -> None:
    run = places.find_run(str(ckpt)) if ckpt else None
    stored = places.config_of(run) if run else {}
    theirs = (stored.get("choices") or {}).get("method") if isinstance(stored.get("choices"), dict) else None
    if ckpt is None or theirs == asked:
        return
    why = f"{Path(str(run))} was trained with method={theirs}" if theirs else "the weights of ckpt are what they are"
    raise UserError(f"'{word}': stage={stage} trains no method, and {why}; leave it out")
