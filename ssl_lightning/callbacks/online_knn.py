"""kNN accuracy at each validation: clean, evaluation-mode features of a bank tell the classes of the queries."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_lightning.callbacks.labels import has_labels, unique_rows
from ssl_lightning.callbacks.watcher import Watcher
from ssl_lightning.core.distributed import gather_rows
from ssl_lightning.core.watched import BANK, QUERIES
from ssl_lightning.evaluation.knn import knn_top1


class OnlineKNN(Watcher):
    """Logs `val/knn_top1`: of the two validation loaders `BANK` and `QUERIES`; both pass through `embed`.

    Off when the data has no labels, and during the sanity check.

    Args:
        k: neighbours.
        temperature: of the vote exp(cosine / temperature), Wu et al. 2018, https://arxiv.org/abs/1805.01978
    """

    def __init__(self, k: int = 20, temperature: float = 0.07) -> None:
        self.k = k
        self.temperature = temperature
        self.on = True
        self._rows: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {BANK: [], QUERIES: []}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on = has_labels(trainer, "kNN")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.on and not trainer.sanity_checking:
            known = outputs["labels"] >= 0
            row = tuple(outputs[name][known] for name in ("features", "labels", "indices"))
            self._rows[dataloader_idx].append(row)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not (self._rows[BANK] and self._rows[QUERIES]):
            return
        (bank, bank_labels), (queries, query_labels) = self._gather(BANK), self._gather(QUERIES)
        self._rows = {BANK: [], QUERIES: []}
        if len(bank) and len(queries):
            top1 = knn_top1(bank, bank_labels, queries, query_labels, min(self.k, len(bank)), self.temperature)
            pl_module.log("val/knn_top1", float(top1), sync_dist=True, add_dataloader_idx=False)

    def _gather(self, loader: int) -> tuple[Tensor, Tensor]:
        """All ranks' (features, labels) of one loader, each image once."""
        features, labels, indices = (gather_rows(torch.cat(part)) for part in zip(*self._rows[loader]))
        rows = unique_rows(indices)
        return features[rows].float(), labels[rows]
