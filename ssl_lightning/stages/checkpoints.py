"""The networks that a run has kept: one for each checkpoint, with the epoch it is of."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.checkpoint import load_weights, resolve_ckpt, restored
from ssl_lightning.runs.known import fed_otherwise
from ssl_lightning.runs.places import find_run
from ssl_lightning.stages.common import Judged

EPOCH = re.compile(r"epoch-(\d+)")


@dataclass(frozen=True)
class Kept:
    """A checkpoint: the run's folder (or the file's name), the file, the method, and the epoch, None for the end."""

    run: str
    file: Path | None
    method: str
    epoch: int | None

    def load(self, judged: Judged) -> nn.Module:
        """Its network, in evaluation mode."""
        if self.file is None:
            return judged.backbone
        if self.run == name_of(judged):
            network = copy.deepcopy(judged.backbone)
            load_weights(network, self.file)
            return network.eval()
        return restored(self.file)


def name_of(judged: Judged) -> str:
    """What the run of a `ckpt=` is called in a table."""
    folder = find_run(judged.ref)
    return str(folder) if folder is not None else judged.ref


def kept(judged: Judged, runs: Sequence[Path] = ()) -> list[Kept]:
    """All checkpoints of the run of `ckpt=` and of other runs, by epoch; the last is the finished network.

    Raises UserError for a run whose network takes other inputs, and for one without weights.
    """
    folder = find_run(judged.ref)
    own = _of(folder, name_of(judged), judged.method) if folder is not None and Path(judged.ref) == folder else []
    found = [*own, Kept(name_of(judged), None, judged.method, None)]
    for run in runs:
        if folder is not None and run.resolve() == folder.resolve():
            continue
        checkpoint = resolve_ckpt(run)
        card = checkpoint.card or {}
        if key := fed_otherwise(judged.card, card):
            raise UserError(
                f"stage.runs: {run} was trained on other inputs ({key}={card.get(key)}, not "
                f"{judged.card.get(key)}); compare runs of the same data and size"
            )
        method = str(card.get("method") or "unknown")
        found += [*_of(run, str(run), method), Kept(str(run), run, method, None)]
    return found


def _of(run: Path, name: str, method: str) -> list[Kept]:
    files = {int(m[1]): file for file in run.glob("checkpoints/epoch-*.ckpt") if (m := EPOCH.fullmatch(file.stem))}
    last = max(files, default=0)  # the finished network is of this epoch
    ended = (run / "backbone.safetensors").is_file()
    return [Kept(name, files[epoch], method, epoch) for epoch in sorted(files) if epoch != last or not ended]
