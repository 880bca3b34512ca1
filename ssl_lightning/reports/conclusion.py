"""What a comparison says: which group of runs is best, and whether the others are worse by more than chance."""

from __future__ import annotations

import math

from ssl_lightning.core import words
from ssl_lightning.reports.axes import number
from ssl_lightning.reports.gathered import Group, Section, data_changed
from ssl_lightning.reports.run_files import COSTS

CHANGED = " The files in this folder changed between these runs: their figures are not of the same items."


def conclusion(part: Section) -> str:
    """Which group is best, and whether the next one is worse by more than chance; and a change of the data."""
    runs = [run for group in part.groups for run in group.runs]
    own = any(key.startswith("data.") or key == "data" for key in (*part.keys, *part.follows))
    changed = data_changed(runs) and not own
    return _conclusion(part) + (CHANGED if changed else "")


def _conclusion(part: Section) -> str:
    scored = [group for group in part.groups if group.done and part.main and math.isfinite(group.mean(part.main))]
    if not part.main or not scored:
        return "No run of these has a figure to compare yet."
    best = scored[0]
    told = f"Best: {part.name(best)}, {heading(part.main)} {figure(best, part.main)}."
    if len(scored) < 2:
        return told
    tied = [part.name(group) for group in scored if group.mean(part.main) == best.mean(part.main)]
    if len(tied) > 1:
        more = f" and {len(tied) - 4} more" if len(tied) > 4 else ""
        told = f"Equally good, {heading(part.main)} {figure(best, part.main)}: {'; '.join(tied[:4])}{more}."
    noise = part.noise(part.main)
    if not math.isfinite(noise):
        return f"{told} One seed each: repeat the best ones with seed=1 and seed=2 to see how much is chance."
    equal = [part.name(group) for group in scored[1:] if not _worse(part, group, best, noise)]
    chance = f"more than chance (deviation over seeds: {figure_of(noise, part.main)})"
    if not equal:
        return f"{told} All others are worse by {chance}."
    more = f" and {len(equal) - 4} more" if len(equal) > 4 else ""
    return f"{told} Not worse by {chance}: {'; '.join(equal[:4])}{more}."


def _worse(part: Section, group: Group, best: Group, noise: float) -> bool:
    """Is it worse by more than two standard errors of the difference of the means?"""
    assert part.main is not None
    measure, sign = part.main, -1 if part.is_lower(part.main) else 1
    error = noise * math.sqrt(1 / len(group.of(measure)) + 1 / len(best.of(measure)))
    return sign * (best.mean(measure) - group.mean(measure)) > 2 * error


def figure(group: Group, measure: str) -> str:
    """A mean, with the deviation over seeds where there are several."""
    mean, deviation = group.mean(measure), math.nan if measure in COSTS else group.deviation(measure)
    if not math.isfinite(mean):
        return "-"
    return (
        figure_of(mean, measure)
        if not math.isfinite(deviation)
        else f"{_plain(mean, measure)} ± {figure_of(deviation, measure)}"
    )


def figure_of(value: float, measure: str) -> str:
    return number(value, words.is_share(measure))


def _plain(value: float, measure: str) -> str:
    return figure_of(value, measure).removesuffix(" %")


def heading(measure: str) -> str:
    """`knn_top1` -> "kNN", `linear_macro_f1` -> "linear probe F1"."""
    kind, _, metric = measure.partition("_")
    if measure in COSTS:
        return {"samples_per_second": "items/s", "seconds": "seconds"}[measure]
    return words.measure(kind, metric)
