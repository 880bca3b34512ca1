"""Lightning trainings of tiny methods on one rank or two: what the tests of several devices share."""

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from ssl_lightning.core.batch import Batch
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import ArrayImages
from ssl_lightning.modalities.image.views import View, Views
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from tests.methods import harness
from tests.methods.harness import SMALL, tiny_method

STEPS, BATCH, EPOCHS = 3, 8, 2  # of an epoch; images a step, over all ranks


class Noise(DataModule):
    """Coloured noise in three classes; float64 views."""

    def __init__(self, side: int, views: int, batch_size: int, test: int = 6, **loading: Any) -> None:
        super().__init__(Views(View(side, count=views)), batch_size, side, **loading)
        self.test, self.side = test, side

    def load(self) -> Loaded:
        return self.part(STEPS * BATCH, 3), self.part(self.test, 4)

    def part(self, count: int, seed: int) -> ArrayImages:
        generator, labels = torch.Generator().manual_seed(seed), torch.arange(count) % 3
        pixels = torch.randint(0, 200, (count, self.side, self.side, 3), generator=generator)
        pixels[torch.arange(count), :, :, labels] += 40
        return ArrayImages(pixels.to(torch.uint8), labels, ["red", "green", "blue"])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Batch:
        found = super().on_after_batch_transfer(batch, dataloader_idx)
        return found._replace(views=[view.double() for view in found.views])


def count_sent(model: DistributedDataParallel) -> list[int]:
    """A list that gets the bytes of buffers of each broadcast, where DDP sends them."""
    sizes: list[int] = []
    send = model._distributed_broadcast_coalesced

    def counted(tensors: list[Tensor], *args: Any, **kwargs: Any) -> None:
        sizes.append(sum(tensor.nbytes for tensor in tensors))
        send(tensors, *args, **kwargs)

    model._distributed_broadcast_coalesced = counted  # type: ignore[method-assign]
    return sizes


class Watch(Checkpoint):
    """Notes the rows of each step and what DDP sends; saves after one of them, when all other callbacks are done."""

    def __init__(self, save: Path | None = None, after: int = 0) -> None:
        self.path, self.after = save, after
        self.rows: list[list[int]] = []
        self.sent: list[int] = []

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        if isinstance(trainer.strategy.model, DistributedDataParallel):
            self.sent = count_sent(trainer.strategy.model)

    def on_train_batch_end(self, trainer: Trainer, method: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.rows.append(batch.indices.tolist())
        if self.path is not None and trainer.global_step == self.after:
            trainer.save_checkpoint(self.path)


def method_for(name: str, statistics: bool = False) -> SSLMethod:
    """The tiny method; with BatchNorm statistics in its networks and their copies, as real ones have, if asked for."""
    plain = harness.tiny_backbone

    def with_statistics(name: str) -> nn.Module:
        backbone = plain(name)
        next(m for m in backbone.modules() if isinstance(m, nn.Conv2d)).statistics = nn.BatchNorm1d(5, affine=False)
        return backbone

    harness.tiny_backbone = with_statistics if statistics else plain
    try:
        return tiny_method(name, optimizer=OptimizerRecipe(SGD, 0.1 * 256 / BATCH, 0.0, WarmupCosine(0)))
    finally:
        harness.tiny_backbone = plain


def trainer_of(ranks: int, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "default_root_dir": mkdtemp()}
    quiet |= {"accelerator": "cpu", "devices": ranks, "strategy": "ddp" if ranks > 1 else "auto"}
    return Trainer(**{**quiet, "max_epochs": EPOCHS, **options})


def data_for(method: SSLMethod, name: str, batch_size: int, **loading: Any) -> Noise:
    side = 12 if "tile_size" in SMALL.get(name, {}) else 4
    return Noise(side, 1 if method.global_views == 1 else 2, batch_size, **loading)


def state_of(method: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in method.state_dict().items()}


def fit(
    name: str,
    ranks: int,
    batch_size: int,
    save: Path | None = None,
    after: int = 0,
    ckpt: Path | None = None,
) -> dict[str, Any]:
    """One training in float64: its end, and the rows of this rank at each step."""
    method, watch = method_for(name), Watch(save, after)
    options: dict[str, Any] = {"callbacks": [watch], "enable_checkpointing": True, "precision": "64-true"}
    trainer = trainer_of(ranks, limit_val_batches=0, **options)
    data = data_for(method, name, batch_size)
    trainer.fit(method, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return {"state": state_of(method), "rows": watch.rows, "sent": watch.sent, "batch_size": data.batch_size}
