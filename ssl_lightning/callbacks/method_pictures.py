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

# What the columns of a method's picture are called; of another one the first is the item, and the rest are counted.
COLUMNS = {
    "reconstruction": ("original", "masked", "reconstruction"),
    "colorization": ("original", "grey", "colorized"),
    "jigsaw": ("original", "puzzle", "solved"),
    "patch_pca": ("original", "patch tokens"),
}
TITLES = {
    "attention": "Where the class token looks, from least (black) to most (white)",
    "patch_pca": "Patch tokens, their three main directions as colours",
}


class MethodPictures(Watcher):
    """Saves `<run_path>/<name>.png` for each picture of the method at every validation.

    Each column is an image, each row what the method says of it. The images are spread over the test split, which is
    often sorted by class. Those of some epochs (1, 2, 5, 10, 20, 50, ...) stay in `pictures/epoch_<n>/`. Methods
    without `pictures` are left alone.

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
            few = batch._replace(
                views=[concat(same) for same in zip(*(piece.views for piece in self._found), strict=True)],
                labels=torch.cat([piece.labels for piece in self._found]),
                indices=torch.cat([piece.indices for piece in self._found]),
            )
            self._found.clear()
            pictures, epoch = pl_module.pictures(few), trainer.current_epoch + 1
            for name, columns in pictures.items() if _are_images(few.views) else ():
                path, dated = self.folder / f"{name}.png", self.folder / f"pictures/epoch_{epoch:03d}/{name}.png"
                title = f"{TITLES.get(name, name.replace('_', ' ').capitalize())}, epoch {epoch}"
                kept = dated if is_kept(epoch) else None
                show(columns, path, trainer, self.rows, title, names_of(name, len(columns)), few.labels, kept)


def is_kept(epoch: int) -> bool:
    """Is this one of the epochs 1, 2, 5, 10, 20, 50, ...?"""
    return str(epoch).rstrip("0") in ("1", "2", "5")


def names_of(picture: str, count: int) -> list[str]:
    """What the columns of a picture are called."""
    known = COLUMNS.get(picture, ("original",))
    word = "head" if picture == "attention" else picture.replace("_", " ")
    return [known[i] if i < len(known) else f"{word} {i}" for i in range(count)]


def _are_images(views: list[Any]) -> bool:
    return all(getattr(view, "ndim", 0) == 4 for view in views)


def rows_of(batch: Any, places: Tensor) -> Any:
    """The same batch with these rows (R,) alone."""
    views = [view[places] for view in batch.views]
    return batch._replace(views=views, labels=batch.labels[places], indices=batch.indices[places])
