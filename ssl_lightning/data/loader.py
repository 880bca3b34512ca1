"""Loaders: a sampler asks for (epoch, indices), a fetcher answers with a batch, in this process or in workers."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ssl_lightning import distributed
from ssl_lightning.data import workers
from ssl_lightning.data.batch import RawBatch
from ssl_lightning.data.broken import BrokenFiles
from ssl_lightning.data.images import BROKEN, ArrayImages, FileImages, ImageSet
from ssl_lightning.data.jpeg import same_as_pil
from ssl_lightning.data.sampler import EvalSampler, Request, TrainSampler
from ssl_lightning.data.views import EvalView

WORKER_TIMEOUT = 600.0  # seconds; from a slow disk the first batch may take minutes


def automatic_workers() -> int:
    """As many workers as this process has cores for, shared among the processes of this machine, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size())), 8))


class Transform(Protocol):
    """What becomes of one image: drawn for a whole batch at once, applied image by image."""

    def draw(self, indices: Tensor, epoch: int) -> Sequence[Any]:
        """What is random, for each of `indices` (B,)."""
        ...

    def apply(self, image: Tensor, drawn: Any) -> Any:
        """uint8 (H, W, C) and its part of `draw` -> one tensor, or a list of one per view."""
        ...


class Fetch(Protocol):
    """Answers a request for a whole batch."""

    def __getitem__(self, request: Request) -> RawBatch: ...


class ArrayFetch(Dataset[RawBatch]):
    """Fetches decoded images by one index operation for the whole batch."""

    def __init__(self, images: ArrayImages):
        self.images = images
        self.none_broken = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, request: Request) -> RawBatch:
        epoch, rows = request
        return RawBatch(self.images.batch(rows), self.images.labels[rows], rows, epoch, self.none_broken)


class SampleFetch(Dataset[RawBatch]):
    """Decodes and transforms image by image. A broken file is replaced by the next good one."""

    def __init__(self, images: ImageSet, transform: Transform):
        self.images, self.transform = images, transform
        if isinstance(images, FileImages):
            same_as_pil()  # found out once, before workers are copied from this process

    def __getitem__(self, request: Request) -> RawBatch:
        epoch, rows = request
        if not len(rows):
            return RawBatch(torch.empty(0), rows, rows, epoch, rows)
        broken: list[int] = []
        samples, used = [], []
        for wanted, drawn in zip(rows.tolist(), self.transform.draw(rows, epoch), strict=True):
            image, row = self._good(wanted, broken)
            if image is None:  # the loader stops the run: an error from a worker would arrive as a page of traceback
                samples, used = [torch.empty(0)], [row]
                break
            if row != wanted:
                (drawn,) = self.transform.draw(torch.tensor([row]), epoch)
            samples.append(self.transform.apply(image, drawn))
            used.append(row)
        # `default_collate` stacks, in a worker in the memory that is sent: one copy less
        several = isinstance(samples[0], list)
        images = [default_collate(list(view)) for view in zip(*samples)] if several else default_collate(samples)
        indices = torch.tensor(used)
        return RawBatch(images, self.images.labels[indices], indices, epoch, torch.tensor(broken, dtype=torch.int64))

    def _good(self, row: int, broken: list[int]) -> tuple[Tensor | None, int]:
        """The image at `row`, or at the next decodable row (around the end); None when too many are broken."""
        most = self.images.broken.whole.most if isinstance(self.images, FileImages) else 1.0
        for step in range(len(self.images)):
            candidate = (row + step) % len(self.images)
            try:
                return self.images.image(candidate), candidate
            except BROKEN:
                broken.append(candidate)
            if len(set(broken)) > most:
                break
        return None, row


def eval_fetch(images: ImageSet, view: EvalView) -> Fetch:
    """Fetches uint8 images of the evaluation view's size; whole batches at once when no image needs resizing."""
    if isinstance(images, ArrayImages) and view.leaves_alone(*images.images.shape[1:3]):
        return ArrayFetch(images)
    return SampleFetch(images, EvalCrop(view))


class EvalCrop:
    """The evaluation crop as a transform of `SampleFetch`; nothing in it is random."""

    def __init__(self, view: EvalView):
        self.view = view

    def draw(self, indices: Tensor, epoch: int) -> list[None]:
        return [None] * len(indices)

    def apply(self, image: Tensor, drawn: None) -> Tensor:
        return self.view.crop(image)


def as_is(batch: Any) -> Any:
    """The collate function where a dataset item is a whole batch already."""
    return batch


class Sent:
    """A sampler's requests for workers: a tensor would be sent as shared memory, a file descriptor for each."""

    def __init__(self, requests: TrainSampler | EvalSampler):
        self.requests = requests

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for epoch, rows in self.requests:
            yield epoch, rows.numpy()


class InWorker(Dataset[RawBatch]):
    """A fetcher at the workers' end of `Sent`."""

    def __init__(self, fetch: Fetch):
        self.fetch = fetch

    def __getitem__(self, request: tuple[int, Any]) -> RawBatch:
        epoch, rows = request
        return self.fetch[epoch, torch.from_numpy(rows)]


class Loader:
    """Iterates over the batches a sampler asks for. Not a DataLoader, so that Lightning leaves the sampler alone.

    Args:
        fetch: makes a batch from a request.
        sampler: `TrainSampler` or `EvalSampler`.
        num_workers: processes that fetch ahead; 0 fetches here.
        pin_memory: put batches of workers into pinned memory, for a faster copy to a GPU.
        broken: where undecodable files are counted.
        finish: applied to each batch before it is handed out.
        timeout: seconds after which workers that do not answer end the run.
    """

    def __init__(
        self,
        fetch: Fetch,
        sampler: TrainSampler | EvalSampler,
        num_workers: int = 0,
        pin_memory: bool = False,
        broken: BrokenFiles | None = None,
        finish: Callable[[RawBatch], Any] = as_is,
        timeout: float = WORKER_TIMEOUT,
    ):
        self.fetch, self.broken, self.finish = fetch, broken, finish
        self.requests = sampler  # under the name "sampler" Lightning would take it for a DataLoader's and replace it
        self.num_workers, self.pin_memory, self.timeout = num_workers, pin_memory, timeout
        self._workers: DataLoader[RawBatch] | None = None

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Any]:
        # A generator: Lightning calls iter() more often than it reads, and nothing may start before the first read.
        try:
            for raw in self._source():
                if self.broken is not None and len(raw.broken):
                    self.broken.add(raw.broken)
                yield self.finish(raw)
        finally:
            if self.broken is not None:
                self.broken.report()

    def _source(self) -> Iterator[RawBatch]:
        if self.num_workers == 0:
            return (self.fetch[request] for request in self.requests)
        if self._workers is None:
            self._workers = DataLoader(
                InWorker(self.fetch),
                sampler=Sent(self.requests),
                batch_size=None,  # the sampler's items are whole batches already
                collate_fn=as_is,
                num_workers=self.num_workers,
                persistent_workers=isinstance(self.requests, TrainSampler),  # evaluation ends its own after each pass
                pin_memory=self.pin_memory,
                worker_init_fn=workers.begin,
            )
        return self._from_workers(workers.watch(iter(self._workers)))

    def _from_workers(self, batches: Iterator[RawBatch]) -> Iterator[RawBatch]:
        while True:
            with workers.answering(batches, self.timeout):
                raw = next(batches, None)  # not StopIteration: whatever is raised in there ends the workers
            if raw is None:
                return
            yield raw

    def close(self) -> None:
        """Ends the worker processes; iterating again starts new ones."""
        if self._workers is not None and self._workers._iterator is not None:
            workers.end(self._workers._iterator)
        self._workers = None

    # Lightning asks for these two before it trusts a loader in the middle of an epoch. The position itself comes
    # from the trainer's own count of trained batches (see DataModule.position), so there is nothing to keep here.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise ValueError(f"a Loader keeps no state, got {state}")
