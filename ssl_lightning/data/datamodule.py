"""`DataModule`: a source of images becomes training batches of views, and evaluation batches of one view."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ssl_lightning import distributed
from ssl_lightning.data.batch import Batch, RawBatch
from ssl_lightning.data.depth import Range
from ssl_lightning.data.described import check_channels, per_channel
from ssl_lightning.data.images import ArrayImages, FileImages, ImageSet
from ssl_lightning.data.labels import labelled_subset
from ssl_lightning.data.loader import (
    WORKER_TIMEOUT,
    ArrayFetch,
    Fetch,
    Loader,
    SampleFetch,
    automatic_workers,
    eval_fetch,
)
from ssl_lightning.data.sampler import PADDING, DealtSampler, EvalSampler, TrainSampler, permutation
from ssl_lightning.data.views import DeviceViews, EvalView, Views, WorkerCrops, WorkerViews
from ssl_lightning.errors import UserError

Split = Literal["train", "test"]
Loaded = tuple[ImageSet, ImageSet] | tuple[ImageSet, ImageSet, ImageSet]
RESIDENT_BYTES = 2 * 1024**3


class DataModule(LightningDataModule):
    """Base of all sources: a subclass overrides `load` and passes `**loading` on to this class.

    Args:
        views: how training views are drawn; None when nothing is trained (stages that only evaluate).
        batch_size: images per device and step.
        image_size: side of the evaluation view.
        eval_resize: its shorter side before the middle is cropped (256 for 224 in published protocols); None: the same.
        mean, std: per channel, for images in [0, 1]. ImageNet's mean their average where there are not three channels.
        num_workers: processes that decode; None = none for decoded images, else one per core, at most 8.
        engine: "device" draws views in one batched pass after transfer; "worker" per image before batching.
        label_fraction, labels_per_class: how many training labels `labelled_indices` gives out; None = all. Training
            batches bear these labels and no others.
        bank_size: training images in the kNN bank during training; None = all.
        query_size: evaluation images scored during training; None = all.
        seed: of the shuffle, the views and all subsets.
        resident: keep decoded images on the GPU; "auto" = when they are smaller than 2 GB.
        worker_timeout: seconds after which processes that do not answer end the run.
        channels: of the images; those that are downloaded or drawn have 3.
    """

    value_range: Range | None = None  # the values that became 0 and 255; None: the images were bytes already

    def __init__(
        self,
        views: Views | None = None,
        batch_size: int = 256,
        image_size: int = 32,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        num_workers: int | None = None,
        engine: Literal["device", "worker"] = "device",
        label_fraction: float | None = None,
        labels_per_class: int | None = None,
        bank_size: int | None = 5000,
        query_size: int | None = None,
        seed: int = 0,
        resident: bool | Literal["auto"] = "auto",
        worker_timeout: float = WORKER_TIMEOUT,
        eval_resize: int | None = None,
        channels: int = 3,
    ):
        super().__init__()
        if engine not in ("device", "worker"):
            raise UserError(f"data.engine={engine} is unknown; use device or worker")
        self.views, self.batch_size, self.image_size, self.channels = views, batch_size, image_size, channels
        self.mean, self.std = per_channel("mean", mean, channels), per_channel("std", std, channels)
        self.num_workers, self.engine, self.resident, self.seed = num_workers, engine, resident, seed
        self.worker_timeout = worker_timeout
        self.label_fraction, self.labels_per_class = label_fraction, labels_per_class
        self.bank_size, self.query_size = bank_size, query_size
        self.eval_resize, self.eval_view = eval_resize, EvalView(image_size, self.mean, self.std, eval_resize)
        self._device_views = None if views is None else DeviceViews(views, self.mean, self.std, seed)
        self._sets: tuple[ImageSet, ImageSet, ImageSet] | None = None
        self._loaders, self._start = list[Loader](), (0, 0)

    # ---- the images

    def load(self) -> Loaded:
        """Returns (train, test) or (train, test, probe); called once.

        `train` is pretrained on, `test` is what everything is scored on, and `probe` holds the labelled training
        images of probes and kNN where these are not `train` itself.
        """
        raise NotImplementedError

    def _load(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        if self._sets is None:
            loaded = self.load()
            check_channels(loaded, self.channels)
            self._sets = (loaded[0], loaded[1], loaded[2] if len(loaded) == 3 else loaded[0])
        return self._sets

    @property
    def train_set(self) -> ImageSet:
        """The images that are pretrained on."""
        return self._load()[0]

    @property
    def test_set(self) -> ImageSet:
        """The images that results are reported on."""
        return self._load()[1]

    @property
    def probe_set(self) -> ImageSet:
        """The training images of probes and kNN; `train_set` unless the source says otherwise."""
        return self._load()[2]

    @property
    def classes(self) -> list[str]:
        """Class names in label order; [] when unlabelled."""
        return self.probe_set.classes

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def has_labels(self) -> bool:
        """True when both the probe's training images and the test images are labelled."""
        return self.probe_set.labelled and self.test_set.labelled

    def prepare_data(self) -> None:  # downloads and caches are made by one process; the others then find them
        self._load()

    def setup(self, stage: str) -> None:
        self._load()
        self._start = (0, 0)  # a checkpoint's own position is loaded after this

    def labelled_indices(self, split: Split = "train") -> Tensor:
        """Rows (M,) whose labels may be used: all of "test", the chosen fraction of "train" (the probe set)."""
        if split == "test":
            return labelled_subset(self.test_set.labels)
        return labelled_subset(self.probe_set.labels, self.label_fraction, self.labels_per_class, self.seed)

    # ---- where we are

    def position(self) -> tuple[int, int]:
        """(epoch, batches of it already trained), from the trainer's own count of trained batches.

        The count is `processed`, which a batch interrupted halfway does not raise: it will be trained again.
        """
        if self.trainer is None or self.trainer.num_training_batches in (0, float("inf")):
            return self._start
        if self.trainer.overfit_batches:  # type: ignore[attr-defined]
            return 0, 0  # the very same batches in every epoch
        trained = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return divmod(trained, int(self.trainer.num_training_batches))

    def state_dict(self) -> dict[str, Any]:
        """Where we are, in images over all ranks: with another number of devices that is the same place."""
        epoch, batch = self.position()
        ranks = distributed.world_size()
        step = self.batch_size * ranks
        return {"epoch": epoch, "images": batch * step, "images_per_step": step, "ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "batch" in state_dict:  # of an older version
            self._start = (state_dict["epoch"], state_dict["batch"])
            return
        step = state_dict["images_per_step"]
        self._keep(step, state_dict["ranks"])
        self._start = (state_dict["epoch"], state_dict["images"] // step)

    def _keep(self, step: int, before: int) -> None:
        """Shares the images of a step among the ranks of today, however many there were `before`."""
        ranks = distributed.world_size()
        if self.batch_size * ranks == step:
            return
        made = f"the checkpoint was made with {step} images a step on {before} device{'s' * (before > 1)}"
        if ranks == before:
            raise UserError(f"{made}, and this run has {self.batch_size * ranks}; set batch_size={step // ranks}")
        if step % ranks:
            raise UserError(f"{made}, which {ranks} cannot share; choose a number of devices that divides {step}")
        if any(isinstance(loader.requests, TrainSampler) for loader in self._loaders):
            raise UserError(f"{made}; for {ranks} set batch_size={step // ranks}")  # too late to change it here
        self.batch_size = step // ranks
        if distributed.is_main():
            print(f"{made}; now each of {ranks} takes {self.batch_size}")

    # ---- loaders

    def train_dataloader(self) -> Loader:
        if self.views is None:
            raise UserError("this data has no views to train on; choose some with views=, for example views=sym")
        images = self._with_usable_labels(self.train_set)
        sampler = TrainSampler(
            len(images), self.batch_size, self.seed, distributed.rank(), distributed.world_size(), self.position
        )
        if self.engine == "worker":
            finished = WorkerViews(self.views, self.mean, self.std, self.seed)
            return self._loader(images, SampleFetch(images, finished), sampler)
        if isinstance(images, ArrayImages):
            return self._loader(images, ArrayFetch(self._resident(images)), sampler)
        return self._loader(images, SampleFetch(images, WorkerCrops(self.views, self.seed)), sampler)

    def val_dataloader(self) -> list[Loader]:
        """[bank, queries]: a seeded subset of the probe set, and the test set or a seeded subset of it. All ranks get
        equally many batches; what only fills up has label and index -1."""
        bank = self._subset(self.probe_set, self.bank_size, "bank")
        queries = self._subset(self.test_set, self.query_size, "queries")
        return [self._eval_loader(self.probe_set, bank), self._eval_loader(self.test_set, queries)]

    def eval_loader(self, split: Split, indices: Tensor | None = None, shared: bool = True) -> Loader:
        """Batches of one normalised view (B, C, S, S) on the CPU: each row of `indices` once over all ranks, or, when
        they are not `shared`, once on every rank. A rank may have no batch at all."""
        images = self._split(split)
        rows = torch.arange(len(images)) if indices is None else indices
        loader = self._eval_loader(images, rows, shared, even=False)
        loader.finish = self.on_after_batch_transfer
        return loader

    def raw_pixels(self, split: Split, indices: Tensor | None = None) -> Tensor:
        """(N, D) pixels in [0, 1] at 32 x 32 at most, in the order of `indices`, all rows on every rank."""
        images = self._split(split)
        rows = torch.arange(len(images)) if indices is None else indices
        view = self.eval_view.smaller(min(self.image_size, 32))
        loader = self._loader(images, eval_fetch(images, view), EvalSampler(rows, self.batch_size))
        return torch.cat([batch.images.flatten(1).float() / 255 for batch in loader])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Turns a `RawBatch` into a `Batch` on the device it lies on; anything else passes through."""
        if not isinstance(batch, RawBatch):
            return batch
        images, roles = batch.images, () if batch.epoch < 0 or self.views is None else self.views.roles()
        with torch.no_grad():
            if isinstance(images, list) and images[0].is_floating_point():  # engine "worker" has done it all
                views = images
            elif batch.epoch == PADDING:
                none = batch.labels.new_full((1,), -1)
                return Batch([torch.zeros(1, self.channels, *[self.image_size] * 2, device=none.device)], none, none)
            elif batch.epoch < 0:
                assert isinstance(images, Tensor)
                views = [self.eval_view.normalize(images)]
            else:
                assert self._device_views is not None
                views = self._device_views(images, batch.indices, batch.epoch)
        return Batch(views, batch.labels, batch.indices, roles)

    def teardown(self, stage: str) -> None:
        for loader in self._loaders:
            loader.close()
        self._loaders.clear()

    def _split(self, split: Split) -> ImageSet:
        if split not in ("train", "test"):
            raise UserError(f"split {split!r} is unknown; use 'train' or 'test'")
        return self.probe_set if split == "train" else self.test_set

    def _with_usable_labels(self, images: ImageSet) -> ImageSet:
        """The training images, -1 for each label that `labelled_indices` does not give out."""
        if images is not self.probe_set or (self.label_fraction is None and self.labels_per_class is None):
            return images
        return images.labelled_at(self.labelled_indices("train"))

    def _subset(self, images: ImageSet, size: int | None, name: str) -> Tensor:
        whole = size is None or size >= len(images)
        return torch.arange(len(images)) if whole else permutation(len(images), name, self.seed)[:size].sort().values

    def _eval_loader(self, images: ImageSet, rows: Tensor, shared: bool = True, even: bool = True) -> Loader:
        ranks = (distributed.rank(), distributed.world_size()) if shared else (0, 1)
        sampler = DealtSampler(rows, self.batch_size, *ranks, even)
        return self._loader(images, eval_fetch(images, self.eval_view), sampler)

    def _loader(self, images: ImageSet, fetch: Fetch, sampler: TrainSampler | EvalSampler) -> Loader:
        workers = self.num_workers
        if isinstance(fetch, ArrayFetch):
            workers = 0  # one index operation per batch: a worker would only add the copy
        elif workers is None:
            decoded = isinstance(images, ArrayImages) and isinstance(sampler, EvalSampler)
            workers = 0 if decoded else automatic_workers()
        broken = images.broken if isinstance(images, FileImages) else None
        loader = Loader(fetch, sampler, workers, self._device().type == "cuda", broken, timeout=self.worker_timeout)
        self._loaders.append(loader)
        return loader

    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _resident(self, images: ArrayImages) -> ArrayImages:
        """The images on the GPU, when there is one and they fit: then a batch costs no transfer."""
        device, fits = self._device(), images.images.numel() < RESIDENT_BYTES
        if device.type != "cuda" or self.resident is False or (self.resident == "auto" and not fits):
            return images
        return images.to(device)
