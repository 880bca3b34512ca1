"""Training a task on few labels: the data, the choice of the checkpoint, the one look at the test set."""

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_lightning.callbacks.average import Average
from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.nan_guard import NanGuard
from ssl_lightning.callbacks.reseed import Reseed
from ssl_lightning.callbacks.throughput import Throughput
from ssl_lightning.core import progress
from ssl_lightning.core.distributed import broadcast_object
from ssl_lightning.core.launch import is_main_process
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule, Drawn, Loaded
from ssl_lightning.data.batch import RawBatch
from ssl_lightning.data.labelled import strata
from ssl_lightning.data.labels import split
from ssl_lightning.data.loader import Fetch, Loader
from ssl_lightning.data.plan import Views
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.modalities.image.draw import View
from ssl_lightning.modalities.image.draw import Views as ImageViews
from ssl_lightning.runs import sharded
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.runs.saving import Damaged, load, load_newest
from ssl_lightning.stages.common import MakeTrainer, need_finite
from ssl_lightning.tasks.finetuner import Finetuner

LOOK_AT_MOST = 10_000  # labelled files that are decoded once to see whether they can be
LOOKS = 20  # how often the checkpoint is judged on the held-out split, and saved


def crop_and_flip(size: int, scale: tuple[float, float]) -> ImageViews:
    """Images' weak augmentation of supervised training: one random crop, flipped half of the time, no other colours."""
    return ImageViews(View(size, scale=scale, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0))


class LabelledData(DataModule):
    """Chosen rows of another data module's labelled items: some to train on, others to pick the checkpoint on.

    Args:
        source: where the items come from; what is to be known of them is asked there.
        rows: (N,) rows of `source.probe_set` to train on.
        picking: (M,) rows to pick on; may be empty.
        views: how training items are drawn.
        batch_size: per device.
    """

    def __init__(self, source: DataModule, rows: Tensor, picking: Tensor, views: Views | None, batch_size: int) -> None:
        super().__init__(
            views=views,
            batch_size=batch_size,
            num_workers=source.num_workers,
            seed=source.seed,
            worker_timeout=source.worker_timeout,
        )
        self.source, self.rows, self.picking = source, rows, picking
        self.drawn = source.drawing(views)  # the hooks, with these views
        self.modality, self.noun, self.naive_name = source.modality, source.noun, source.naive_name  # type: ignore[misc]
        self.label_kind = source.label_kind

    def fit_batch(self, devices: int) -> None:
        """Make the batch smaller where there are fewer items than one batch on each device."""
        self.batch_size = max(1, min(self.batch_size, len(self.rows) // devices))

    def load(self) -> Loaded:
        items = self.source.probe_set
        return items.subset(self.rows), items.subset(self.picking)

    def train_fetch(self, items: Any) -> Fetch:
        return self.drawn.train_fetch(items)

    def eval_fetch(self, items: Any) -> Fetch:
        return self.drawn.eval_fetch(items)

    def training_views(self, raw: RawBatch) -> Drawn:
        return self.drawn.training_views(raw)

    def evaluation_views(self, raw: RawBatch) -> Drawn:
        return self.drawn.evaluation_views(raw)

    def padding_views(self, device: torch.device) -> list[Any]:
        return self.drawn.padding_views(device)

    def place(self, items: Any, device: torch.device) -> Any:
        return self.drawn.place(items, device)

    def val_dataloader(self) -> list[Loader]:
        return [self._eval_loader(self.test_set, torch.arange(len(self.test_set)))]


def picking_split(data: DataModule, share: float) -> tuple[Tensor, Tensor]:
    """The labelled training rows as (train on, pick on): seeded, stratified; a class of one label is trained on."""
    rows = readable(data, data.labelled_indices("train"))
    if share == 0:
        return rows, rows[:0]
    kept, held = split(strata(data.probe_set, data.label_kind)[rows], share, data.seed)
    return rows[kept], rows[held]


def readable(data: DataModule, rows: Tensor) -> Tensor:
    """The rows (N,) whose files can be decoded.

    A broken file is one in thousands of the whole set, but may be more than the tolerated share of a few labels. In
    large selections it is not, and looking at each file would cost as much as an epoch.
    """
    if data.probe_set.broken is None or len(rows) > LOOK_AT_MOST:
        return rows
    found = extract(labels_only, data.eval_loader("train", rows)).indices
    return rows[torch.isin(rows, found)]


def labels_only(view: Any) -> Tensor:
    """Features (B, 1) of nothing: where labels and rows alone are wanted."""
    return torch.zeros(len(view), 1)


class KeepBest(Callback):
    """Writes `best.ckpt`, the weights alone, whenever the picking split says that they are the best so far.

    Args:
        path: of the file.
        average: whose weights are meant, where they are averaged.
        patience: epochs without a better look after which the training ends; None: it goes on to its last epoch.
    """

    def __init__(self, path: Path, average: Average | None = None, patience: int | None = None) -> None:
        self.path, self.average, self.patience = path, average, patience
        self.best: tuple[float, float] | None = None  # (the main metric, -loss)
        self.epoch = 0  # of the best
        self.ended = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.ended:  # and was not tested yet
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        found = pl_module.picking
        if self.best is None or found > self.best:  # type: ignore[operator]
            self.best, self.epoch = found, trainer.current_epoch  # type: ignore[assignment]
            with self.average.in_place(pl_module) if self.average else nullcontext():
                trainer.save_checkpoint(self.path, weights_only=True)
        if self.patience is not None and trainer.current_epoch - self.epoch >= self.patience:
            self.ended = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self.best) if self.best else None, "epoch": self.epoch, "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = tuple(state_dict["best"]) if state_dict["best"] else None
        self.epoch, self.ended = state_dict.get("epoch", 0), state_dict.get("ended", False)


@dataclass(frozen=True)
class Trained:
    """The metrics on the test set of one training, and how long that was."""

    scores: dict[str, float]
    steps: int
    images: int  # items seen, counted over all ranks and epochs
    seconds: float  # of the training, by all the processes it took one after another
    epochs: int = 0  # until its end, which may have come early
    per_class: dict[str, float] = field(default_factory=dict)  # accuracies


def train_and_test(
    module: Finetuner,
    data: LabelledData,
    trainer: MakeTrainer,
    folder: Path,
    epochs: int,
    seed: int,
    tell: Callable[[Features], None] | None = None,
    average: float = 0.0,
    patience: int | None = None,
) -> Trained:
    """Train, take the best checkpoint of the picking split (the last one without such a split), test it once.

    What `folder` (in the run's) holds of an interrupted training is taken up again.

    Args:
        tell: is given the outputs for the test items, in place of features.
        average: decay of the moving average of the weights, which is then what is picked and tested; 0: none.
        patience: of the picking split, in epochs, see `KeepBest`.
    """
    every = max(1, epochs // LOOKS)
    mean = Average(average) if average else None
    saving = Checkpoint(folder, every_n_epochs=every)
    best = KeepBest(folder / "checkpoints" / "best.ckpt", mean, patience)
    picks, throughput = len(data.picking) > 0, Throughput()
    own = [throughput, NanGuard(), Reseed(seed), *([mean] if mean else []), *([best] if picks else []), saving]
    fitter = trainer(
        callbacks=own,
        subfolder=str(folder.absolute()),
        max_epochs=epochs,
        check_val_every_n_epoch=every,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if picks else 0,
    )
    data.fit_batch(fitter.world_size)
    begun = RunFolder(folder).checkpoint
    if begun and picks and best_is_lost(saving.path, best.path):
        begun = None
    begun = broadcast_object(begun)  # as rank 0 sees it
    module.title = folder.name.replace("_", " ")
    progress.say(
        f"training: {module.title}, {len(data.rows):,} labels, {len(data.picking):,} to pick the checkpoint on"
    )
    fitter.fit(module.train(), datamodule=data, ckpt_path=sharded.checked(begun, fitter.strategy), weights_only=True)
    # From the file even where it is the last state: BatchNorm's statistics may differ between ranks.
    module.load_state_dict(load(best.path if picks else saving.path)["state_dict"])
    device = fitter.strategy.root_device
    with progress.phase(f"testing {module.title}"):
        outputs = extract(module.to(device), data.source.eval_loader("test"), device)
    need_finite(("test", outputs), noun=data.noun)
    task, keep = module.task.to("cpu"), module.task.known(outputs.labels)
    found = outputs.x[keep], outputs.labels[keep]
    scores = task.measure(outputs.x, outputs.labels) | task.details(*found)
    if tell is not None:
        tell(outputs)
    spent = fitter.global_step, throughput.images, throughput.seconds, fitter.current_epoch
    return Trained(scores, *spent, task.per_class(*found))


def told(scores: Mapping[str, float], what: str, task: Task) -> dict[str, float]:
    """Metrics as keys of results.json, `linear_top1` say: those that the task tells of baselines."""
    return {f"{what}_{name}": scores[name] for name in task.beside or scores}


def best_is_lost(last: Path, best: Path) -> bool:
    """Whether a training has picked a checkpoint that cannot be read any more: it is to be done again from its start.

    No later state holds those weights. Everything is drawn from the seed, so the same ones come out.
    """
    if last.is_dir():  # sharded: its strategy alone can read it
        return False
    state, _ = load_newest(last)
    if not state["callbacks"].get("KeepBest", {}).get("best"):
        return False
    try:
        load(best)
    except Damaged:
        if is_main_process():
            print(f"{best} is damaged or absent; doing this training again from its start", file=sys.stderr, flush=True)
        return True
    return False
