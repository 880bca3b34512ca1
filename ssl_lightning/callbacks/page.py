"""The page of a run while it trains: written anew at every validation, from what lies in its folder by then."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_lightning.callbacks.watcher import Watcher
from ssl_lightning.core.watched import QUERIES
from ssl_lightning.reports import facts, keep, kept, pages

log = logging.getLogger("ssl_lightning")


class Page(Watcher):
    """Writes `<run_path>/report.html` at each validation, with a map of the features of the first queries.

    It only reads: it draws no random numbers and costs well under a second. Rank 0 alone writes. Where it fails, a line
    says so and the run goes on.

    Args:
        run_path: the run's folder.
        items: queries whose features are on the map; 0 for none.
    """

    def __init__(self, run_path: str | Path, items: int = 1000) -> None:
        self.folder, self.items = Path(run_path), items
        self.command: Sequence[str] = ()  # the words of the command line, set by the stage
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self._inputs: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.command:  # for the page of a run that is stopped in its first epoch
            with pages.quietly("the command of this run"):
                kept.add(self.folder, facts.of_command(self.command), {})

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        wanted = dataloader_idx == QUERIES and trainer.is_global_zero and not trainer.sanity_checking
        if not wanted or sum(len(rows[0]) for rows in self._rows) >= self.items:
            return
        known = outputs["indices"] >= 0
        row = (outputs[name][known].detach().cpu() for name in ("features", "labels", "indices"))
        self._rows.append((*row,))  # type: ignore[arg-type]
        if not self._inputs:
            self._inputs = facts.of_inputs(iter(batch.views[0]))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        rows, self._rows = self._rows, []
        with pages.quietly("the page of this run"):
            self._note(trainer, pl_module, rows)
            pages.write(self.folder)

    def _note(
        self, trainer: Trainer, pl_module: LightningModule, rows: Sequence[tuple[Tensor, Tensor, Tensor]]
    ) -> None:
        about = facts.of_data(trainer.datamodule) | facts.of_network(pl_module)  # type: ignore[attr-defined]
        about |= facts.of_command(self.command) | facts.of_versions() | self._inputs
        about |= facts.of_device(pl_module.device, trainer.world_size)
        arrays = {}
        if rows:
            features, labels, indices = (torch.cat(part)[: self.items] for part in zip(*rows, strict=True))
            if len(features) > 1 and torch.isfinite(features).all():
                arrays = keep.on_the_map(features, labels, indices)
        kept.write(self.folder, about, arrays)
