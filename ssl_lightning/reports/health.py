"""The health of a run in words: what its curves say, what is normal for its method, and what to try.

A pure function of the metrics, the results, the config and the facts in `report.npz`. Each rule is one small function
with its source, in `rules` and `outcome`. The thresholds are those of theory where there is one (the loss of a guess
among 2N - 1 candidates), and otherwise far from what sound runs show: tests hold both kinds of runs to them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_lightning.core.finding import BAD, OK, ORDER, WATCH, Finding
from ssl_lightning.reports.look import Look
from ssl_lightning.reports.rules import RULES

__all__ = ["BAD", "OK", "WATCH", "Finding", "findings", "words"]


def findings(
    rows: Sequence[Mapping[str, float]],
    results: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """What is found, the worst first.

    Args:
        rows: of metrics.csv, values that are no numbers left out.
        results: of results.json; None or empty while the run goes on.
        config: of config.yaml.
        about: of report.npz.
    """
    look = Look(rows, results or {}, config or {}, about or {})
    found: list[Finding] = []
    for rule in RULES:
        kinds = {finding.kind for finding in found}
        finding = rule(look)
        # A collapsed or diverged run is told once, and not again by each thing that follows from it.
        if finding is not None and not kinds & set(finding.unless):
            found.append(finding)
    return sorted(found, key=lambda finding: ORDER.index(finding.level))


def words(found: Sequence[Finding], timed: bool = True) -> list[str]:
    """Each finding as one line: its level, what is seen, and what to try.

    Args:
        timed: also those that depend on how fast the machine was; results.json has none of these.
    """
    kept = [finding for finding in found if timed or not finding.timed]
    return [f"{f.level}: {f.says}" + (f" {f.fix}" if f.fix else "") for f in kept]
