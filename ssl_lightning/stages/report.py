"""stage=report: make the page of a run again, from what lies in its folder, with more maps of its features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import barrier, is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.base import DataModule
from ssl_lightning.reports import kept, pages
from ssl_lightning.reports.keep import Keeper
from ssl_lightning.reports.maps import MAPS, PACKAGES, added, available
from ssl_lightning.runs.places import find_run
from ssl_lightning.stages.common import (
    Judged,
    MakeTrainer,
    Stopwatch,
    device_of,
    need_finite,
    report,
    same_items,
    split_features,
)

SLOW = {"umap": "; its first call compiles: about a minute"}
Map = Literal["umap", "tsne"]


def run(
    judged: Judged, data: DataModule, trainer: MakeTrainer, maps: Sequence[Map] | None = None, anew: bool = False
) -> dict[str, Any]:
    """Writes `report.html` into the folder of the run that `ckpt=` names.

    Where that folder holds no features (a run of an older version, or one that was stopped), they are computed from
    its weights and data.

    Args:
        maps: those beside PCA; None: those whose packages are installed.
        anew: compute the features again in any case.
    """
    watch, folder = Stopwatch(), find_run(judged.ref)
    if folder is None:
        raise UserError(
            f"stage=report makes the page of a run, and {judged.ref} is not in a run's folder; give ckpt=runs/<name>"
        )
    wanted = [name for name in available() if name != "pca"] if maps is None else list(maps)
    for name in wanted:
        if name not in available():
            raise UserError(f"the map {MAPS[name]} needs {PACKAGES[name]}; pip install 'ssl-lightning[maps]'")
    if anew or kept.read(folder).get("queries") is None:
        same_items(judged, data)
        extract(judged, data, trainer, folder)
    page = None
    if is_main():
        features = kept.read(folder).get("features")
        if features is not None:
            for name in wanted:
                progress.say(f"map of {len(features):,} items by {MAPS[name]}{SLOW.get(name, '')}")
                kept.add(folder, {}, added(features, [name]))
        page = pages.write(folder)
    barrier()
    return report(judged, watch, page=str(page) if page else None, maps=["pca", *wanted])


def extract(judged: Judged, data: DataModule, trainer: MakeTrainer, folder: Path) -> None:
    """Compute the features of both splits, and keep what the page needs of them."""
    device = device_of(trainer)
    train, test = split_features(judged.backbone.to(device), data, device)
    need_finite(("train", train), ("test", test), noun=data.noun)
    Keeper(folder, data, judged.backbone)(train, test)
