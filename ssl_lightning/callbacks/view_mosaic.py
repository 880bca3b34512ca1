"""A picture of what the network is shown, made at the first training batch of a new run."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.callbacks.captions import captioned
from ssl_lightning.callbacks.watcher import Watcher
from ssl_lightning.core import files
from ssl_lightning.core.batch import GLOBAL

SMALLEST = 128  # px of a cell's longer side, so that it can be read


def mosaic(views: Sequence[Tensor], mean: Tensor, std: Tensor, items: int = 8, gap: int = 2) -> Tensor:
    """Views, each (B, C, h, w), normalised or uint8 -> one uint8 picture (H, W, 3): views as rows, images as columns.

    Views are enlarged, pixels kept square: small ones to 128 px or more, others to the first one's size. One channel is
    shown in grey; of more than three the first three as red, green and blue.
    """
    rows = []
    for view in views:
        x = view[:items].detach().cpu().float()
        x = x / 255 if view.dtype == torch.uint8 else x * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
        rows.append((in_colours(x).clamp(0, 1) * 255).round())
    return tiled(rows, gap)


def tiled(rows: Sequence[Tensor], gap: int = 2) -> Tensor:
    """Rows of pictures (items, 3, h, w) in 0..255 -> one picture uint8 (H, W, 3), a white gap between them.

    They are enlarged by whole numbers until the first row's are 128 px, the others to its size.
    """
    height, width = rows[0].shape[-2:]
    times = max(1, math.ceil(SMALLEST / max(height, width)))
    size = (times * height, times * width)
    cells = []
    for x in rows:
        x = F.interpolate(x, size=size, mode="nearest") if x.shape[-2:] != size else x
        cells.append(F.pad(x, (0, gap, 0, gap), value=255.0))
    grid = torch.stack(cells)  # (V, items, 3, h + gap, w + gap)
    v, n, _, h, w = grid.shape
    picture = grid.permute(0, 3, 1, 4, 2).reshape(v * h, n * w, 3)
    return picture[: v * h - gap, : n * w - gap].to(torch.uint8)


def drawn(views: Sequence[Any], show: Callable[[Any], Tensor | None], items: int) -> Tensor | None:
    """The mosaic of views (B, ...) of any modality, each item drawn by `show`; None where there is no such picture."""
    pictures = [[show(view[i]) for i in range(min(items, len(view)))] for view in views]
    if not all(picture is not None for row in pictures for picture in row):
        return None
    return tiled([torch.stack([p.permute(2, 0, 1).float() for p in row if p is not None]) for row in pictures])


def in_colours(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 3, h, w): one channel in grey, two as red and green, of more the first three."""
    if x.shape[1] == 1:
        return x.expand(-1, 3, -1, -1)
    return F.pad(x, (0, 0, 0, 0, 0, 1)) if x.shape[1] == 2 else x[:, :3]


class ViewMosaic(Watcher):
    """Saves `<run_path>/views.png`, a column for each image and a row for each view, and hands it to the loggers that
    take images.

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
        names = role_names(getattr(batch, "roles", ()) or (GLOBAL,) * len(batch.views))
        show(batch.views, self.path, trainer, self.rows, "Views, as the network is shown them", names, batch.labels)


def role_names(roles: Sequence[str]) -> list[str]:
    """What each view is called: "view 1", "view 2", "local 1", ..."""
    named: list[str] = []
    for place, role in enumerate(roles):
        count = sum(other == role for other in roles[: place + 1])
        named.append(f"{'view' if role == GLOBAL else role} {count}")
    return named


def class_names(trainer: Trainer, labels: Any) -> list[str]:
    """The classes of items with these labels; "" where one has none, or labels are no classes."""
    items = getattr(trainer.datamodule, "test_set", None)  # type: ignore[attr-defined]
    classes = list(getattr(items, "classes", ()) or ())
    if not isinstance(labels, Tensor) or labels.ndim != 1:
        return []
    return [str(classes[label]) if 0 <= label < len(classes) else "" for label in labels.tolist()]


def show(
    views: Sequence[Any],
    path: Path,
    trainer: Trainer,
    items: int,
    title: str,
    names: Sequence[str],
    labels: Any = None,
    copy: Path | None = None,
) -> None:
    """Saves the mosaic of views (B, ...), as the data draws them, with words around; loggers that take images get it.

    A data module that draws nothing, and is not of ours, shows images by its `mean` and `std`.

    Args:
        names: of the views.
        labels: (B,) of the items.
        copy: where it is kept a second time.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if hasattr(data, "show"):
        found = drawn(views, data.show, items)
    else:
        found = mosaic(views, torch.as_tensor(data.mean).float().cpu(), torch.as_tensor(data.std).float().cpu(), items)
    if found is None:
        return
    count = min(items, len(views[0]))
    classes = (class_names(trainer, labels) or [""] * count)[:count]
    picture = captioned(found, title, names, classes).numpy()
    for file in (path, copy):
        if file is not None:
            save(picture, file, trainer.current_epoch + 1)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):  # W&B
            logger.log_image(path.stem, [picture])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(path.stem, picture, global_step=trainer.global_step, dataformats="HWC")


def save(picture: Any, file: Path, epoch: int) -> None:
    """Write bytes (H, W, 3) as a PNG that says of which epoch it is."""
    said = PngInfo()
    said.add_text("epoch", str(epoch))
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(file) as temporary:
        Image.fromarray(picture).save(temporary, "PNG", pnginfo=said)
