"""What is typed is used or refused: a key that this run would not read is named, with the way out.

What a yaml brings is another matter: an experiment is the same for every stage. What a stage builds and reads with the
values that it has is told by its own source (`reading.py`, `flows.py`), what a key needs of another one by a table
(`needs.py`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_lightning.config import allowed, flows, needs, reading, signatures
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import places
from ssl_lightning.runs.comparison import FREE

# To a stage by the run.
GIVEN = allowed.STAGE_TAKES | {"backbone", "seed", "method_name", "data_name", "start", "task"}
GIVEN |= {"named_data", "named_task"}
ON_DEVICE = ("accelerator", "devices", "num_nodes", "strategy", "plugins")  # of `trainer`: where a stage computes
NEVER = frozenset({"limit_test_batches", "limit_predict_batches"})  # of `trainer`: no stage tests or predicts with it
ALWAYS = ("progress", "interrupt")  # callbacks that a stage's own list does not replace (`trainers.py`)
LEARNT = {"value_range"}  # of the data: what they find out of their images where nothing is typed
# Of the data: what a copy that draws other views is asked for (`stages/training.py`, LabelledData).
DRAWING = {"train_fetch", "eval_fetch", "training_views", "evaluation_views", "padding_views", "place"}
DRAWS_VIEWS = {"views", "train_dataloader"}  # of the data
RELABELS = "labelled_by"  # of the data: a copy with other labels, of which the same is asked
OF_THE_LABELS = frozenset({"label_fraction", "labels_per_class"})
TRAINED_ON = {"pretrain_on"}  # of the data: which items pretraining takes; evaluation learns from labelled ones alone
A_LOOK_AT = {"ssl_lightning.stages.doctor.run": "ssl_lightning.stages.pretrain.run"}  # whose words it takes, too
QUIET = tuple(key for key in FREE if key.startswith(("trainer.", "data.", "callbacks.")))  # show; they decide nothing
UNKNOWN = re.compile(r"([\w.]+): \S+ takes no argument '(\w+)'")  # as `instantiate.py` says it
CURVES_ALONE = re.compile(r"[+~]*logger(=\[?csv\]?$|\.csv\b)")  # the logger that takes no results
RECORDED = {"judged", "trainer", "run"}  # arguments of a stage whose results loggers take at the end
FEW = 6  # keys that are listed where another one is refused


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


# ---- what a stage reads ---------------------------------------------------------------------------------------------


def built(target: str, data: str | None = None, values: Mapping[str, Any] | None = None) -> Built:
    """What the stage of this dotted name reads; `data`: the class of the data; `values`: of the stage's arguments."""
    signature = signatures.read(target)
    params = signature.params if signature else {}
    known = _known(params, values or {})
    own = reading.arguments(target, known)
    keys: dict[str, frozenset[str] | None] = {"stage": None if own is None else frozenset(own)}
    unread: dict[str, frozenset[str]] = {}
    if "method" in params:
        keys |= dict.fromkeys(("method", "backbone", "optimizer", "scheduler"))
    if "judged" in params:
        keys["backbone"] = None
    if "task" in params:
        keys["task"] = None
    if "data" in params:
        found = reading.reads(target, "data", known)
        keys |= _of_data(found, data)
        unread |= {"data": OF_THE_LABELS} if RELABELS in found.attributes else {}
    if "trainer" in params:
        keys |= _of_trainer(reading.reads(A_LOOK_AT.get(target, target), "trainer", known), unread)
        keys |= {"logger": None} if params.keys() >= RECORDED else {}
    return Built(keys, unread)


def _known(params: Mapping[str, signatures.Param], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a stage that the config decides, with their values; the run gives the others."""
    own = {key: param.default_value() for key, param in params.items() if key not in GIVEN}
    return {key: values.get(key, *default) for key, default in own.items() if key in values or default}


def _of_data(found: reading.Reads, data: str | None) -> dict[str, frozenset[str] | None]:
    signature = signatures.read(data) if data else None
    known = signature.params.keys() if signature else set()
    attributes = found.attributes - (LEARNT - known) - {RELABELS}
    if "drawing" in attributes:
        attributes = attributes - {"drawing"} | DRAWING
    carried = attributes if attributes <= known else flows.arguments(data, attributes, LEARNT) if data else None
    plain = not found.whole and carried is not None
    if carried is not None and not attributes & {"train_dataloader", "train_set"}:
        carried = carried - TRAINED_ON
    keys: dict[str, frozenset[str] | None] = {"data": frozenset(carried or ()) if plain else None}
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


# ---- what is typed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The words of a command line and the config that they gave, `references` from a key to the one it refers to."""

    words: tuple[str, ...]
    values: Mapping[str, Any]
    choices: Mapping[str, Any]
    references: Mapping[str, str] = field(default_factory=dict)
    _built: dict[tuple[Any, ...], Built] = field(default_factory=dict, repr=False, compare=False)

    @property
    def stage(self) -> str:
        return str(self.choices.get("stage"))

    @property
    def known(self) -> bool:
        """Is the stage one of ours? What a user's own does is theirs to say."""
        return self._target in allowed.STAGE.functions

    def types(self, key: str) -> bool:
        """Is a key typed, by itself or in a mapping? The choice of a yaml is something else."""
        parts = {_place(word) for word in self.words if word.partition("=")[2].startswith("{")}
        return key in map(_place, self.words) or not parts.isdisjoint(_parents(key))

    def origin(self, key: str) -> str:
        """The key that a key's value comes from, by one reference after another."""
        for _ in range(20):
            above = next((k for k in (key, *_parents(key)) if k in self.references), None)
            if above is None:
                return key
            key = self.references[above] + key[len(above) :]
        return key

    @property
    def _target(self) -> str:
        return str((self.values.get("stage") or {}).get("_target_"))

    def built(self, **changed: Any) -> Built:
        """What the stage reads, where some of its arguments are `changed`."""
        key = tuple(sorted(changed.items()))
        if key not in self._built:
            data = (self.values.get("data") or {}).get("_target_")
            self._built[key] = built(self._target, data, {**(self.values.get("stage") or {}), **changed})
        return self._built[key]


def check(line: Line) -> None:
    """Raise a UserError for the first word that the run would not read."""
    check_method(line)
    for _, why in unread(line):
        raise UserError(why)


def check_method(line: Line) -> None:
    """Raise a UserError for a `method=` that contradicts the run that a stage is to judge."""
    if line.known and "method" not in line.built().keys:
        for word in line.words:
            if re.match(r"\+*method=", word):
                _check_method(word, line.values.get("ckpt"), str(line.choices.get("method")), line.stage)


def of_what_was_typed(error: UserError, line: Line) -> UserError:
    """An error on a key whose value was typed for another one, as an error on that one."""
    text = str(error)
    if (found := UNKNOWN.match(text)) and not line.types(place := f"{found[1]}.{found[2]}"):
        return UserError(f"{text} It comes from a yaml: leave it out with ~{place}")
    found = re.match(r"[A-Za-z_][\w.]*\w(?=[ =])", text)
    key = found[0] if found else ""
    origin = line.origin(key)
    if origin == key or not line.types(origin) or line.types(key):
        return error
    return UserError(f"{origin}{text[len(key) :].rstrip('.')} ({key} takes it)")


def _parents(key: str) -> list[str]:
    """The parts of a config that a key lies in, the nearest first."""
    steps = key.split(".")
    return [".".join(steps[:n]) for n in range(len(steps) - 1, 0, -1)]


def unread(line: Line) -> list[tuple[str, str]]:
    """(word, why) for each word that the run would not read."""
    if not line.known:
        return []
    has, found = line.built(), []
    for word in line.words:
        if why := _of_the_stage(word, line, has) or needs.unmet(_place(word), line.values, line.references):
            found.append((word, f"'{word}': {why}"))
    return found


def _place(word: str) -> str:
    key = re.match(r"[+~]*([\w/@.-]*)", word)
    return key[1].replace("/", ".").partition("@")[0] if key else ""


def _of_the_stage(word: str, line: Line, has: Built) -> str:
    """Why the stage does not read a word, or ""."""
    place = _place(word)
    group, _, rest = place.partition(".")
    key = rest.partition(".")[0]
    if group == "method" and not rest and "@" not in word:
        return ""  # its name: that of the run, or a contradiction
    if place == "deterministic" and "trainer" not in has.keys:
        return f"stage={line.stage} {_WHY['trainer']}; leave it out"
    if group not in _GROUPS or key.startswith("_") or _quiet(place):
        return ""
    if CURVES_ALONE.match(word) and not has.reads("callbacks", ""):
        return f"stage={line.stage} {_WHY['logger']}; leave it out, or add what takes results: logger=wandb"
    if has.reads(group, key) and not (group == "trainer" and key in NEVER):
        return ""
    instead = _instead(place, line.values.get("stage") or {}, has)
    return f"stage={line.stage} {_why(group, key, line, has)}{instead}"


def _quiet(place: str) -> bool:
    return any(place == key or place.startswith(f"{key}.") for key in QUIET)


_WHY = {
    "method": "trains no method",
    "optimizer": "trains no method and does not use this optimizer",
    "scheduler": "trains no method and does not use this schedule",
    "views": "draws no training views",
    "callbacks": "trains nothing, so callbacks have no use",
    "logger": "writes no curves",
    "trainer": "uses no trainer",
    "data": "reads no data",
    "backbone": "builds no backbone",
    "task": "reads no labels",
}
_GROUPS = frozenset({*_WHY, "stage"})


def _why(group: str, key: str, line: Line, has: Built) -> str:
    place = f"{group}.{key}" if key else group
    if key in NEVER:
        return f"does not read {place}: it neither tests nor predicts with the trainer; leave it out"
    for flag, value in (line.values.get("stage") or {}).items():
        if isinstance(value, bool) and line.built(**{flag: not value}).reads(group, key):
            return f"reads {place} only with stage.{flag}={str(not value).lower()}; add that, or leave it out"
    if group not in has.keys:
        return f"{_WHY[group]}; leave it out"
    if key in has.unread.get(group, ()):
        return f"sets {place} itself; leave it out"
    if group == "callbacks":
        return "has callbacks of its own; leave it out"
    known = sorted(has.keys[group] or ())
    listed = f"reads of {group} only {', '.join(known)}" if len(known) <= FEW else f"does not read {place}"
    return f"{listed}; leave it out"


def _instead(place: str, node: Mapping[str, Any], has: Built) -> str:
    """The stage's own argument of that name, or of that name without `max_`, where it is read."""
    group, _, rest = place.partition(".")
    last = rest.rpartition(".")[2]
    names = [name for name in (last, last.removeprefix("max_")) if name in node and has.reads("stage", name)]
    return f", or give stage.{names[0]}" if names and group != "stage" else ""


def _check_method(word: str, ckpt: Any, asked: str, stage: str) -> None:
    run = places.find_run(str(ckpt)) if ckpt else None
    stored = places.config_of(run) if run else {}
    theirs = (stored.get("choices") or {}).get("method") if isinstance(stored.get("choices"), dict) else None
    if ckpt is None or theirs == asked:
        return
    why = f"{Path(str(run))} was trained with method={theirs}" if theirs else "the weights of ckpt= are already trained"
    raise UserError(f"'{word}': stage={stage} trains no method, and {why}; leave it out")
