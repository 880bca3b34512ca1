"""`DataModule`: what data of every modality shares: sets, labels, samplers, loaders, ranks, the place in a run.

Nothing here knows what an item is. A modality gives its sets (`load`) and the hooks below; the one path from what a
loader gives to what a method is given is `on_after_batch_transfer`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from ssl_lightning.core import distributed
from ssl_lightning.core.batch import GLOBAL, Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Reads
from ssl_lightning.data.batch import Drawn, RawBatch, drawn_by
from ssl_lightning.data.everything import Everything
from ssl_lightning.data.items import ItemSet
from ssl_lightning.data.labelled import Labelled, Split, only_at
from ssl_lightning.data.loader import WORKER_TIMEOUT, BatchFetch, Fetch, Loader, automatic_workers
from ssl_lightning.data.plan import Views
from ssl_lightning.data.position import Position
from ssl_lightning.data.sampler import (
    EVALUATE,
    FILL,
    NO_EPOCH,
    DealtSampler,
    EvalSampler,
    Request,
    TrainSampler,
    permutation,
    rows_of,
)

Loaded = tuple[Any, Any] | tuple[Any, Any, Any]  # sets: (train, test) or (train, test, probe)


class DataModule(Labelled, Position, LightningDataModule):
    """Base of all data; a modality's module adds its hooks, and a source `load`.

    Args:
        views: how training views are drawn; None when nothing is trained (stages that only evaluate).
        batch_size: items per device and step.
        num_workers: processes that fetch; None = none for items in memory, else one per core, at most 8.
        label_fraction, labels_per_class: how many training labels `labelled_indices` gives out; None = all. Training
            batches bear these labels and no others.
        bank_size, query_size: items of the kNN bank, and evaluation items scored, during training; None = all.
        seed: of the shuffle, the views and all subsets.
        worker_timeout: seconds after which processes that do not answer end the run.

    >>> DataModule(batch_size=32).batch_size
    32
    """

    modality: ClassVar[str] = ""  # one word, for the card
    noun: ClassVar[str] = "item"  # what one of them is called in messages
    annotated: ClassVar[tuple[Reads, ...]] = ()  # what of "boxes" and "masks" it can tell of its items
    naive_name: ClassVar[str] = "naive"  # the naive baseline's key in results.json

    def __init__(
        self,
        views: Views | None = None,
        batch_size: int = 256,
        num_workers: int | None = None,
        label_fraction: float | None = None,
        labels_per_class: int | None = None,
        bank_size: int | None = 5000,
        query_size: int | None = None,
        seed: int = 0,
        worker_timeout: float = WORKER_TIMEOUT,
    ):
        super().__init__()
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.worker_timeout = worker_timeout
        self.label_fraction, self.labels_per_class = label_fraction, labels_per_class
        self.bank_size, self.query_size = bank_size, query_size
        self._sets: tuple[Any, Any, Any] | None = None
        self._loaders, self._start = list[Loader](), (0, 0)
        self.views: Any = views  # `Views` of the modality, or None

    # ---- what a modality gives

    def load(self) -> Loaded:
        """Returns (train, test) or (train, test, probe), each an `ItemSet`; called once.

        `train` is pretrained on, `test` is what everything is scored on, and `probe` holds the labelled training
        items of probes and kNN where these are not `train` itself.
        """
        raise NotImplementedError

    def check_sets(self, sets: Sequence[Any]) -> None:
        """Refuse sets that the arguments do not fit."""

    def train_fetch(self, items: Any) -> Fetch:
        """What makes a training batch of these items from a request, in this process or in a worker."""
        return self.eval_fetch(items)

    def eval_fetch(self, items: Any) -> Fetch:
        """The same for evaluation, where nothing is random. Here: items in memory, as they are."""
        return BatchFetch(items)

    def training_views(self, raw: RawBatch) -> Drawn:
        """The views of a training batch on the device it lies on, each a pure function of (seed, epoch, index)."""
        raise NotImplementedError

    def evaluation_views(self, raw: RawBatch) -> Drawn:
        """The one deterministic view of an evaluation batch. Here: the items as they are."""
        return [raw.items], ()

    def padding_views(self, device: torch.device) -> list[Any]:
        """The view of a batch of one item that counts for nothing and fills up a rank. Here: that of a test item."""
        raw = self.eval_fetch(self.test_set)[Request(NO_EPOCH, torch.zeros(1, dtype=torch.int64), EVALUATE)]
        return self.evaluation_views(self.transfer_batch_to_device(raw, device, 0))[0]

    def naive_features(self, split: Split, indices: Tensor | None = None) -> Tensor:
        """(N, D): what features must beat, in the order of `indices`, all rows on every rank."""
        raise NotImplementedError

    def card(self) -> dict[str, Any]:
        """What a network needs to be fed as it was by this data, in plain values for the card in its weights file."""
        return {"modality": self.modality} if self.modality else {}

    def fed_as(self, card: dict[str, Any]) -> None:
        """Feed a network as its card says, where the data do not say otherwise. Called before any item is read."""

    def check_network(self, backbone: nn.Module) -> None:
        """Refuse a network that cannot take these items."""

    def show(self, item: Any) -> Tensor | None:
        """A picture of one view of one item, bytes (H, W, 3); None where there is none."""
        return None

    def everything(self) -> Everything | None:
        """Every file that these data are read from, in whatever split; None where items are no files."""
        return None

    def place(self, items: Any, device: torch.device) -> Any:
        """The items of training, on the device where that saves their transfer."""
        return items

    def use_views(self, views: Any) -> None:
        """Draw training views in this way from now on."""
        self.views = views

    def weak_views(self, scale: tuple[float, float]) -> Views | None:
        """The weak augmentation of supervised training: one view; `scale` bounds the part of an item that is kept."""
        return self.views

    def dense_views(self, zoom: Sequence[float], flip_p: float) -> Views | None:
        """One training view whose boxes or masks move with it; here there are none. `zoom`: bounds of its scale."""
        raise UserError(f"these are {self.noun}s without boxes or masks; choose data=voc, coco, folder or shapes")

    def whole_views(self) -> Views | None:
        """One training view of the whole item, for tasks whose targets are of all of it."""
        return self.weak_views((1.0, 1.0))

    def beyond_view(self, rows: Mapping[Split, Tensor]) -> tuple[int, str]:
        """(how many items at these rows (M,) of each split no view holds whole, what would hold them); here none."""
        return 0, ""

    def naive_network(self) -> nn.Module | None:
        """A module from a view to naive features, with an integer `out_dim`; None where there is none."""
        return None

    # ---- the sets

    def _load(self) -> tuple[Any, Any, Any]:
        if self._sets is None:
            loaded = self.load()
            self.check_sets(loaded)
            self.bear(loaded)
            self._sets = (loaded[0], loaded[1], loaded[2] if len(loaded) == 3 else loaded[0])
        return self._sets

    @property
    def train_set(self) -> Any:
        """The items that are pretrained on."""
        return self._load()[0]

    @property
    def test_set(self) -> Any:
        """The items that results are reported on."""
        return self._load()[1]

    @property
    def probe_set(self) -> Any:
        """The training items of probes and kNN; `train_set` unless the source says otherwise."""
        return self._load()[2]

    def prepare_data(self) -> None:  # downloads and caches are made by one process; the others then find them
        self._load()

    def setup(self, stage: str) -> None:
        self._load()
        self._start = (0, 0)  # a checkpoint's own position is loaded after this

    # ---- loaders

    def train_dataloader(self) -> Loader:
        if self.views is None:
            raise UserError("this data has no views to train on; choose some with views=, for example views=sym")
        items = self._with_usable_labels(self.train_set)
        ranks = distributed.rank(), distributed.world_size()
        sampler = TrainSampler(len(items), self.batch_size, self.seed, *ranks, self.position, self.noun)
        return self._loader(items, self.train_fetch(self.place(items, self._device())), sampler)

    def val_dataloader(self) -> list[Loader]:
        """[bank, queries]: a seeded subset of the probe set, and the test set or a seeded subset of it. All ranks get
        equally many batches; what only fills up has label and index -1."""
        of = (self.probe_set, self.bank_size, "bank"), (self.test_set, self.query_size, "queries")
        return [self._eval_loader(items, self._subset(items, size, name)) for items, size, name in of]

    def eval_loader(
        self, split: Split, indices: Tensor | None = None, shared: bool = True, batch_size: int | None = None
    ) -> Loader:
        """Batches of the evaluation view on the CPU: each row of `indices` once over all ranks, or, when they are not
        `shared`, once on every rank. A rank may have no batch at all. `batch_size`: None is that of the data."""
        items = self._split(split)
        loader = self._eval_loader(items, rows_of(items, indices), shared, even=False, batch_size=batch_size)
        loader.finish = self._evaluated
        return loader

    def each(self, split: Split, indices: Tensor | None = None, fetch: Fetch | None = None) -> Loader:
        """Raw batches of these rows in order, all of them on every rank; by `eval_fetch` unless told otherwise."""
        items = self._split(split)
        sampler = EvalSampler(rows_of(items, indices), self.batch_size)
        return self._loader(items, fetch or self.eval_fetch(items), sampler)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Turns a `RawBatch` into a `Batch` on the device it lies on; anything else passes through."""
        if not isinstance(batch, RawBatch):
            return batch
        if batch.purpose in (EVALUATE, FILL):
            return self._evaluated(batch)
        with torch.no_grad():
            views, roles = drawn_by(self.training_views, batch)
        return Batch(views, batch.labels, batch.indices, roles)

    def _evaluated(self, batch: RawBatch) -> Batch:
        """The end of that path in evaluation, on its own: it reads nothing of what training views are drawn by."""
        with torch.no_grad():
            if batch.purpose == FILL:
                none = batch.indices.new_full((1,), -1)
                return Batch(self.padding_views(none.device), self.no_targets(none), none)
            views, roles = drawn_by(self.evaluation_views, batch)
        return Batch(views, batch.labels, batch.indices, roles)

    @property
    def global_count(self) -> int:
        """How many global views of an item are trained on."""
        return 0 if self.views is None else self.views.roles().count(GLOBAL)

    def teardown(self, stage: str) -> None:
        for loader in self._loaders:
            loader.close()
        self._loaders.clear()

    def drawing(self, views: Views | None) -> Self:
        """A copy with the same items that draws these views."""
        other = copy.copy(self)
        other._load = self._load  # type: ignore[method-assign]  # the sets are read once
        other.use_views(views)
        return other

    def labelled_by(self, fraction: float | None, per_class: int | None, seed: int) -> Self:
        """A copy with the same items that gives out other labels, and shuffles by another seed."""
        other = copy.copy(self)
        other._load = self._load  # type: ignore[method-assign]
        other.label_fraction, other.labels_per_class, other.seed = fraction, per_class, seed
        return other

    def _split(self, split: Split) -> Any:
        if split in ("train", "test"):
            return self.probe_set if split == "train" else self.test_set
        raise UserError(f"split {split!r} is unknown; use 'train' or 'test'")

    def _with_usable_labels(self, items: Any) -> Any:
        """The training items, -1 for each label that `labelled_indices` does not give out."""
        if items is not self.probe_set or (self.label_fraction is None and self.labels_per_class is None):
            return items
        return only_at(items, self.labelled_indices("train"))

    def _subset(self, items: Any, size: int | None, name: str) -> Tensor:
        whole = size is None or size >= len(items)
        return torch.arange(len(items)) if whole else permutation(len(items), name, self.seed)[:size].sort().values

    def _eval_loader(
        self, items: Any, rows: Tensor, shared: bool = True, even: bool = True, batch_size: int | None = None
    ) -> Loader:
        ranks = (distributed.rank(), distributed.world_size()) if shared else (0, 1)
        sampler = DealtSampler(rows, batch_size or self.batch_size, *ranks, even)
        return self._loader(items, self.eval_fetch(items), sampler)

    def _loader(self, items: ItemSet, fetch: Fetch, sampler: TrainSampler | EvalSampler) -> Loader:
        workers = self.num_workers
        if getattr(fetch, "at_once", False):
            workers = 0  # one index operation per batch: a worker would only add the copy
        elif workers is None:
            workers = 0 if items.in_memory and isinstance(sampler, EvalSampler) else automatic_workers()
        pin = self._device().type == "cuda"
        loader = Loader(fetch, sampler, workers, pin, items.broken, timeout=self.worker_timeout)
        self._loaders.append(loader)
        return loader

    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
