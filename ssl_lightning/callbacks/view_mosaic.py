"""A picture of what the network is shown, made at the first training batch of a new run."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.callbacks.watcher import Watcher

SMALLEST = 128  # px of a cell's longer side, so that it can be read


def mosaic(views: Sequence[Tensor], mean: Tensor, std: Tensor, rows: int = 8, gap: int = 2) -> Tensor:
    """Views, each (B, C, h, w), normalised or uint8 -> one uint8 picture (H, W, 3): images as rows, views as columns.

    Views are enlarged, pixels kept square: small ones to 128 px or more, others to the first one's size. One channel is
    shown in grey; of more than three the first three as red, green and blue.
    """
    columns = []
    for view in views:
        x = view[:rows].detach().cpu().float()
        x = x / 255 if view.dtype == torch.uint8 else x * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
        columns.append((in_colours(x).clamp(0, 1) * 255).round())
    return tiled(columns, gap)


def tiled(columns: Sequence[Tensor], gap: int = 2) -> Tensor:
    """Columns of pictures (rows, 3, h, w) in 0..255 -> one picture uint8 (H, W, 3), a white gap between them.

    They are enlarged by whole numbers until the first column's are 128 px, the others to its size.
    """
    height, width = columns[0].shape[-2:]
    times = max(1, math.ceil(SMALLEST / max(height, width)))
    size = (times * height, times * width)
    cells = []
    for x in columns:
        x = F.interpolate(x, size=size, mode="nearest") if x.shape[-2:] != size else x
        cells.append(F.pad(x, (0, gap, 0, gap), value=255.0))
    grid = torch.stack(cells, dim=1)  # (rows, V, 3, h + gap, w + gap)
    n, v, _, h, w = grid.shape
    picture = grid.permute(0, 3, 1, 4, 2).reshape(n * h, v * w, 3)
    return picture[: n * h - gap, : v * w - gap].to(torch.uint8)


def drawn(columns: Sequence[Any], show: Callable[[Any], Tensor | None], rows: int) -> Tensor | None:
    """The mosaic of views (B, ...) of any modality, each item drawn by `show`; None where there is no such picture."""
    pictures = [[show(view[i]) for i in range(min(rows, len(view)))] for view in columns]
    if not all(picture is not None for column in pictures for picture in column):
        return None
    return tiled([torch.stack([p.permute(2, 0, 1).float() for p in column if p is not None]) for column in pictures])


def in_colours(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 3, h, w): one channel in grey, two as red and green, of more the first three."""
    if x.shape[1] == 1:
        return x.expand(-1, 3, -1, -1)
    return F.pad(x, (0, 0, 0, 0, 0, 1)) if x.shape[1] == 2 else x[:, :3]


class ViewMosaic(Watcher):
    """Saves `<run_path>/views.png`, and hands it to the loggers that take images.

    Args:
        run_path: the run's folder.
        rows: how many images.
    """

    def __init__(self, run_path: str | Path, rows: int = 8) -> None:
        self.path = Path(run_path) / "views.png"
        self.rows = rows

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step > 0 or batch_idx > 0 or not trainer.is_global_zero:
            return
        show(batch.views, self.path, trainer, self.rows)


def show(columns: Sequence[Any], path: Path, trainer: Trainer, rows: int) -> None:
    """Saves the mosaic of views (B, ...), as the data draws them; loggers that take images get it.

    A data module that draws nothing, and is not of ours, shows images by its `mean` and `std`.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if hasattr(data, "show"):
        found = drawn(columns, data.show, rows)
    else:
        found = mosaic(columns, torch.as_tensor(data.mean).float().cpu(), torch.as_tensor(data.std).float().cpu(), rows)
    if found is None:
        return
    picture = found.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):  # W&B
            logger.log_image(path.stem, [picture])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(path.stem, picture, global_step=trainer.global_step, dataformats="HWC")
