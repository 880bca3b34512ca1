"""Groups of runs: what differs between their configs is found here, by itself.

Runs that are equal but for their seed are one group; runs of another stage, data or task are another section, for their
figures mean something else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ssl_lightning.core.words import KINDS, LOWER, SECOND, last_word
from ssl_lightning.reports.run_files import COSTS, Run, number_of
from ssl_lightning.runs.comparison import differences, flatten
from ssl_lightning.runs.earlier import WITHIN

# Choices that make the sections, that stand for values told one by one, or that leave the results as they are.
NOT_SWEPT = {"stage", "data", "task", "experiment", "logger", "trainer"}
PLACES = ("data.root", "data.labels", "data.probe_root")  # where data lie: nothing, where these are the same


@dataclass(frozen=True)
class Group:
    """Runs that are equal but for their seed. `values`: what sets the group apart, in the section's order of keys."""

    values: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def done(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.results is not None)

    def of(self, measure: str) -> list[float]:
        """One measure of each seed, of finished runs; of unfinished ones where there are no others.

        Runs of one seed are repeats of one another: they say nothing of chance, and the first of them counts.
        """
        found: dict[Any, float] = {}
        for run in self.done or self.runs:
            if math.isfinite(value := run.measured().get(measure, math.nan)):
                found.setdefault(run.origin, value)
        return list(found.values())

    def mean(self, measure: str) -> float:
        """Over seeds; nan without any."""
        return fmean(found) if (found := self.of(measure)) else math.nan

    def deviation(self, measure: str) -> float:
        """The standard deviation over seeds; nan with fewer than two."""
        return stdev(found) if len(found := self.of(measure)) > 1 else math.nan

    def best(self, measure: str, lower: bool = False) -> Run:
        """The run with the best figure, the lowest where `lower`; the first where none has one."""
        sign = -1 if lower else 1
        scored = [(sign * run.measured().get(measure, math.nan), run) for run in self.done or self.runs]
        return max((pair for pair in scored if pair[0] == pair[0]), key=lambda pair: pair[0], default=scored[0])[1]


@dataclass(frozen=True)
class Section:
    """Runs whose figures can be compared: groups, best first, and the keys that set them apart."""

    stage: str
    data: str
    task: str
    keys: tuple[str, ...]
    groups: tuple[Group, ...]
    measures: tuple[str, ...]
    follows: tuple[str, ...] = ()  # keys that differ, too, but only together with these
    lower: tuple[str, ...] = LOWER  # metrics of which less is better

    @property
    def main(self) -> str | None:
        """The measure that groups are ranked by."""
        return self.measures[0] if self.measures and self.measures[0] not in COSTS else None

    def name(self, group: Group) -> str:
        """A group in words: `method=byol, base_lr=0.1`."""
        told = ", ".join(f"{short(key)}={value}" for key, value in zip(self.keys, group.values, strict=True))
        return told or group.runs[0].path.name

    def is_lower(self, measure: str) -> bool:
        """Is less of this measure better?"""
        return measure.partition("_")[2] in self.lower or measure == "seconds"

    def noise(self, measure: str) -> float:
        """The deviation over seeds, pooled over all groups that have several; nan where none has."""
        pairs = [(len(group.of(measure)) - 1, group.deviation(measure)) for group in self.groups]
        pairs = [(freedom, deviation) for freedom, deviation in pairs if freedom > 0]
        return math.sqrt(sum(f * d * d for f, d in pairs) / sum(f for f, _ in pairs)) if pairs else math.nan


def short(key: str) -> str:
    """The last word of a dotted key."""
    return key.rsplit(".", 1)[-1]


# ---- groups --------------------------------------------------------------------------------------------------------


def sections(runs: Sequence[Run]) -> list[Section]:
    """The runs by stage, data and task, the largest section first, each with its groups, best first.

    Files in different folders are different data, which `data.root` then tells apart, unless their fingerprints say
    that they are copies of one another.
    """
    by_kind: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        by_kind.setdefault(run.section, []).append(run)
    found = []
    for (stage, data, task), some in by_kind.items():
        apart = by_data(some)
        for same in apart:
            root = f" {same[0].root}" if len(apart) > 1 and same[0].root else ""
            found.append(((stage, data + root, task), same))
    return [_section(kind, some) for kind, some in sorted(found, key=lambda pair: -len(pair[1]))]


def by_data(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs on the same data together: of one folder, or of folders whose fingerprints are the same."""
    found: list[list[Run]] = []
    for run in runs:
        same = [some for some in found if any(_same_data(run, other) for other in some)]
        kept = [some for some in found if all(some is not one for one in same)]
        found = [*kept, [*(other for some in same for other in some), run]]
    order = {id(run): i for i, run in enumerate(runs)}
    return sorted((sorted(some, key=lambda run: order[id(run)]) for some in found), key=lambda some: order[id(some[0])])


def _same_data(one: Run, other: Run) -> bool:
    return one.root == other.root or (one.fingerprint == other.fingerprint != "")


def data_changed(runs: Sequence[Run]) -> bool:
    """Were the files of one folder others when one of these runs was evaluated? A split may depend on the seed."""
    seen: dict[tuple[str, Any], set[str]] = {}
    for run in runs:
        if run.root and run.fingerprint:
            seen.setdefault((run.root, run.config.get("seed")), set()).add(run.fingerprint)
    return any(len(prints) > 1 for prints in seen.values())


def _section(kind: tuple[str, str, str], runs: Sequence[Run]) -> Section:
    keys, follows = differing(runs)
    by_values: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        by_values.setdefault(tuple(value_of(run, key) for key in keys), []).append(run)
    groups = [Group(values, tuple(some)) for values, some in by_values.items()]
    measures, lower = _measures(runs), lower_of(runs)
    main = measures[0] if measures else ""
    sign = 1 if main.partition("_")[2] in lower else -1

    def rank(group: Group) -> tuple[int, float]:
        mean = group.mean(main)
        return (0 if group.done else 1, sign * mean) if math.isfinite(mean) else (2, 0.0)

    return Section(*kind, tuple(keys), tuple(sorted(groups, key=rank)), measures, tuple(follows), lower)


def lower_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """The metrics of which less is better, those that results name as such among them."""
    told = [run.metric for run in runs]
    return (*LOWER, *dict.fromkeys(str(one.get("name")) for one in told if one.get("higher_is_better") is False))


def _measures(runs: Sequence[Run]) -> tuple[str, ...]:
    """What some run has, kNN first; of each kind the main figure first, and top-5 and the like left to results.json."""
    seen = dict.fromkeys(key for run in runs for key in run.measured() if last_word(key) not in SECOND)
    kinds = {kind: [key for key in seen if key.startswith(f"{kind}_")] for kind in KINDS}
    mains = {run.metric.get("name") for run in runs}
    kinds = {kind: sorted(keys, key=lambda key: key.partition("_")[2] not in mains) for kind, keys in kinds.items()}
    firsts = [keys[0] for keys in kinds.values() if keys]
    others = [key for keys in kinds.values() for key in keys[1:]]
    return (*firsts, *others, *(key for key in COSTS if key in seen))


def differing(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """(keys that set the runs apart, keys that differ only together with these).

    A choice (`method`) stands for all that comes with it; within the same choices, every key that differs counts.
    """
    chosen = sorted({key for run in runs for key in run.choices} - NOT_SWEPT)
    parts = [key for key in chosen if len({str(run.choices.get(key)) for run in runs}) > 1]
    by_choices: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        by_choices.setdefault(tuple(str(run.choices.get(part)) for part in parts), []).append(run)
    within = {key for some in by_choices.values() for key in _different(some)}
    across = _different([some[0] for some in by_choices.values()]) - within
    under = tuple(f"{part}." for part in parts)
    own = {key for key in across if not key.startswith(under) and key not in parts}
    return [*parts, *sorted(within - set(parts))], sorted(own)


def _different(runs: Sequence[Run]) -> set[str]:
    """Keys of the config whose values are not the same in all of these, seeds aside."""
    first = runs[0].config
    lines = [line for run in runs[1:] for line in differences(first, run.config)]
    keys = {line.partition(": ")[0] for line in lines}
    gone = {"seed", "ckpt_sha256"}
    places = PLACES if runs[0].fingerprint and len({run.fingerprint for run in runs}) == 1 else ()
    twins = {inner + key.removeprefix(part) for part, inner in WITHIN.items() for key in keys if key.startswith(part)}
    return {key for key in keys if short(key) not in gone and key not in places and key not in twins}


def value_of(run: Run, key: str) -> str:
    """What a run has under a dotted key, in words; of a part its choice."""
    if key in run.choices:
        return str(run.choices[key])
    node: Any = run.config
    for word in key.split("."):
        node = node.get(word) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping):
        return str(node.get("_target_", "...")).rsplit(".", 1)[-1]
    text = "default" if node is None and key not in flatten(run.config) else "null" if node is None else str(node)
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_numbers(values: Iterable[str]) -> list[float] | None:
    """The values as numbers, or None where one is none."""
    found = [number_of(value) for value in values]
    return found if all(math.isfinite(value) for value in found) else None


def in_order(values: Iterable[str]) -> list[str]:
    """Each value once: by number where all are numbers, else in the order they came."""
    unique = list(dict.fromkeys(values))
    return sorted(unique, key=float) if as_numbers(unique) else unique
