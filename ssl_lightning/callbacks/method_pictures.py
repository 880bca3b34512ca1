"""Pictures of what a method makes of an image: reconstructions, attention maps, solved puzzles."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_lightning.callbacks.view_mosaic import show


@runtime_checkable
class HasPictures(Protocol):
    """A method with something to show: {name: columns (B, 3, H, W), normalised as images are, or uint8}."""

    def pictures(self, batch: Any) -> dict[str, list[Tensor]]: ...


class MethodPictures(Callback):
    """Saves `<run_path>/<name>.png` for each picture of the method at every validation, of the first test images.

    Each row is an image, each column what the method says of it. Methods without `pictures` are left alone.

    Args:
        run_path: the run's folder.
        rows: how many images.
    """

    def __init__(self, run_path: str | Path, rows: int = 8) -> None:
        self.folder = Path(run_path)
        self.rows = rows

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
        wanted = dataloader_idx == 1 and batch_idx == 0 and trainer.is_global_zero and not trainer.sanity_checking
        if not wanted or not isinstance(pl_module, HasPictures):
            return
        few = batch._replace(
            views=[view[: self.rows] for view in batch.views],
            labels=batch.labels[: self.rows],
            indices=batch.indices[: self.rows],
        )
        for name, columns in pl_module.pictures(few).items():
            show(columns, self.folder / f"{name}.png", trainer, self.rows)
