"""Pictures of what a method makes of an image: reconstructions, attention maps, solved puzzles."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_lightning.callbacks.view_mosaic import show
from ssl_lightning.callbacks.watcher import Watcher
from ssl_lightning.core.batch import concat
from ssl_lightning.core.watched import QUERIES, Pictured


class MethodPictures(Watcher):
    """Saves `<run_path>/<name>.png` for each picture of the method at every validation.

    Each row is an image, each column what the method says of it. The images are spread over the test split, which is
    often sorted by class. Methods without `pictures` are left alone.

    Args:
        run_path: the run's folder.
        rows: how many images.
    """

    def __init__(self, run_path: str | Path, rows: int = 8) -> None:
        self.folder = Path(run_path)
        self.rows = rows
        self._found: list[Any] = []  # pieces of batches

    @torch.no_grad()
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
        if not wanted or not isinstance(pl_module, Pictured):
            return
        batches = int(trainer.num_val_batches[QUERIES])
        share = sum(row * batches // self.rows == batch_idx for row in range(self.rows))
        if batch_idx == 0:
            self._found.clear()
        if share:
            places = torch.arange(min(share, len(batch.labels)), device=batch.labels.device)
            self._found.append(rows_of(batch, places * len(batch.labels) // len(places)))
        if batch_idx == batches - 1:
            views, labels, indices = zip(*self._found, strict=True)
            few = batch._replace(
                views=[concat(same) for same in zip(*views, strict=True)],
                labels=torch.cat(labels),
                indices=torch.cat(indices),
            )
            self._found.clear()
            pictures = pl_module.pictures(few)
            for name, columns in pictures.items() if _are_images(few.views) else ():
                show(columns, self.folder / f"{name}.png", trainer, self.rows)


def _are_images(views: list[Any]) -> bool:
    return all(getattr(view, "ndim", 0) == 4 for view in views)


def rows_of(batch: Any, places: Tensor) -> Any:
    """The same batch with these rows (R,) alone."""
    views = [view[places] for view in batch.views]
    return batch._replace(views=views, labels=batch.labels[places], indices=batch.indices[places])
