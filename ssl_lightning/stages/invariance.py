"""stage=invariance: what the features keep of factors that are known, for one run or several side by side."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.words import named_baseline
from ssl_lightning.data.base import DataModule, Split
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.readout import Readout, read_factors
from ssl_lightning.reports import invariance
from ssl_lightning.reports.pages import quietly
from ssl_lightning.reports.run_files import find
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.runs.known import fed_otherwise
from ssl_lightning.runs.places import find_run
from ssl_lightning.stages.common import (
    Judged,
    MakeTrainer,
    Stopwatch,
    calibrated,
    device_of,
    need_finite,
    open_backbone,
    report,
    same_items,
)

SPLITS: tuple[Split, ...] = ("train", "test")


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    runs: str | list[str] | None = None,
    items: int = 5000,
) -> dict[str, Any]:
    """Reads each factor linearly (ridge regression) from frozen features, and from random weights and naive features.

    The factors are those that the data's generator knows (`data=shapes`: class, colour, size, position, rotation,
    texture; `data=tones`: class, melody, pitch ...). Writes `invariance.csv`, `invariance.png` and `invariance.html`.

    Args:
        runs: folders of further runs to set beside `ckpt`, trained on the same data; patterns, too.
        items: training items to read from, and test items to read on, at most.

    Raises:
        UserError: the data know no factors, or a run is fed otherwise than the first.
    """
    watch, device = Stopwatch(), device_of(trainer)
    same_items(judged, data)
    rows = tuple(torch.arange(min(items, len(found))) for found in (data.probe_set, data.test_set))
    known = data.factors("train", rows[0]), data.factors("test", rows[1])
    if not known[0]:
        raise UserError("these data know no factors of their items: stage=invariance takes data=shapes and data=tones")
    others = [open_backbone(path, {}) for path in _beside(judged, runs)]
    for other in others:
        _same_feed(judged, other)
    columns: dict[str, dict[str, Readout]] = {}
    for name, one in _named([judged, *others]).items():
        progress.say(f"reading {len(known[0])} factors from {name}")
        net = one.backbone.to(device)
        features = tuple(extract(net, data.eval_loader(*part), device) for part in zip(SPLITS, rows))
        need_finite(("train", features[0]), ("test", features[1]), noun=data.noun)
        columns[name] = _read(tuple(found.x for found in features), known, data.seed)
    calibrated(judged.random.to(device), data, device)
    random = tuple(extract(judged.random, data.eval_loader(*part), device).x for part in zip(SPLITS, rows))
    columns[named_baseline("random_init")] = _read(random, known, data.seed)
    naive = data.naive_features("train", rows[0]), data.naive_features("test", rows[1])
    columns[named_baseline(data.naive_name)] = _read(naive, known, data.seed)
    data.teardown("predict")
    words = invariance.verdict(columns, 1 + len(others))
    if is_main():
        with quietly("the chart of invariance"):
            invariance.write(columns, words, run.path)
    kept = {name: {factor: round(one.kept, 4) for factor, one in found.items()} for name, found in columns.items()}
    files = [str(run.path / f"invariance.{end}") for end in ("csv", "png", "html")]
    return report(judged, watch, verdict=words, kept=kept, protocol={"readout": _protocol(rows)}, files=files)


def _beside(judged: Judged, runs: str | list[str] | None) -> list[Path]:
    """The folders of the further runs, without the one that is looked at anyway."""
    own = find_run(judged.ref)
    found = find(runs, least=1) if runs else []
    return [path for path in found if own is None or path.resolve() != own.resolve()]


def _protocol(rows: tuple[Tensor, ...]) -> str:
    return f"ridge regression, penalty chosen on a fifth of {len(rows[0])} training items, {len(rows[1])} test items"


def _read(features: tuple[Tensor, ...], known: tuple[dict[str, Tensor], ...], seed: int) -> dict[str, Readout]:
    return read_factors(features[0], known[0], features[1], known[1], seed)


def _same_feed(first: Judged, other: Judged) -> None:
    if key := fed_otherwise(first.card, other.card):
        raise UserError(
            f"{other.ref} was trained with data.{key}={other.card.get(key)} and {first.ref} with "
            f"{first.card.get(key)}: compare runs that are fed alike"
        )


def _named(found: list[Judged]) -> dict[str, Judged]:
    """By the names of their runs; with a number where two have the same."""
    names: dict[str, Judged] = {}
    for one in found:
        path = Path(one.ref)
        name = path.name if path.is_dir() else path.parent.name or path.name
        name = name if name not in names else f"{name} ({len(names) + 1})"
        names[name] = one
    return names
