"""Loaders: a sampler asks for (epoch, indices), a fetcher answers with a batch, in this process or in workers."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ssl_lightning.core import distributed
from ssl_lightning.data import workers
from ssl_lightning.data.batch import RawBatch
from ssl_lightning.data.broken import BrokenFiles
from ssl_lightning.data.labelled import targets_of
from ssl_lightning.data.sampler import EvalSampler, Purpose, Request, TrainSampler

WORKER_TIMEOUT = 600.0  # seconds; from a slow disk the first batch may take minutes


def automatic_workers() -> int:
    """As many workers as this process has cores for, shared among the processes of this machine, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size())), 8))


class Transform(Protocol):
    """What becomes of one item: drawn for a whole batch at once, applied item by item."""

    def draw(self, indices: Tensor, epoch: int) -> Sequence[Any]:
        """What is random, for each of `indices` (B,)."""
        ...

    def apply(self, item: Any, drawn: Any) -> Any:
        """An item and its part of `draw` -> what `collate` makes a batch of, such as one tensor per view."""
        ...


class Fetch(Protocol):
    """Answers a request for a whole batch. One with a true `at_once` needs no workers."""

    def __getitem__(self, request: Request) -> RawBatch: ...


class BatchFetch(Dataset[RawBatch]):
    """Fetches items in memory by one index operation for the whole batch (`items.batch`)."""

    at_once = True

    def __init__(self, items: Any):
        self.items = items
        self.none_broken = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, request: Request) -> RawBatch:
        epoch, rows, purpose = Request(*request)
        return RawBatch(self.items.batch(rows), targets_of(self.items, rows), rows, epoch, self.none_broken, purpose)


class SampleFetch(Dataset[RawBatch]):
    """Reads and transforms item by item. A broken file is replaced by the next good one.

    Args:
        items: an `ItemSet`.
        transform: what becomes of each item.
        collate: from the list of what `transform.apply` gave to one batch on the host: by default stacked, view by
            view where it gave several.
    """

    def __init__(self, items: Any, transform: Transform, collate: Callable[[list[Any]], Any] = default_collate):
        self.items, self.transform, self.collate = items, transform, collate
        items.prepare()

    def __getitem__(self, request: Request) -> RawBatch:
        epoch, rows, purpose = Request(*request)
        if not len(rows):
            return RawBatch(torch.empty(0), rows, rows, epoch, rows, purpose)
        broken: list[int] = []
        samples, used = list[Any](), list[int]()
        for wanted, drawn in zip(rows.tolist(), self.transform.draw(rows, epoch), strict=True):
            item, row = self._good(wanted, broken)
            if row < 0:  # the loader stops the run: an error from a worker would arrive as a page of traceback
                samples, used = [], [wanted]
                break
            if row != wanted:
                (drawn,) = self.transform.draw(torch.tensor([row]), epoch)
            samples.append(self.transform.apply(item, drawn))
            used.append(row)
        # `default_collate` stacks, in a worker in the memory that is sent: one copy less
        batch = self.collate(samples) if samples else torch.empty(0)
        indices, lost = torch.tensor(used), torch.tensor(broken, dtype=torch.int64)
        return RawBatch(batch, targets_of(self.items, indices), indices, epoch, lost, purpose)

    def _good(self, row: int, broken: list[int]) -> tuple[Any, int]:
        """(item, its row): at `row`, or the next readable one (around the end); row -1 when too many are broken."""
        most = 1.0 if self.items.broken is None else self.items.broken.whole.most
        for step in range(len(self.items)):
            candidate = (row + step) % len(self.items)
            try:
                return self.items.item(candidate), candidate
            except self.items.unreadable:
                broken.append(candidate)
            if len(set(broken)) > most:
                break
        return None, -1


def as_is(batch: Any) -> Any:
    """The collate function where a dataset item is a whole batch already."""
    return batch


class Sent:
    """A sampler's requests for workers: a tensor would be sent as shared memory, a file descriptor for each."""

    def __init__(self, requests: TrainSampler | EvalSampler):
        self.requests = requests

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[tuple[int, Any, Purpose]]:
        for epoch, rows, purpose in self.requests:
            yield epoch, rows.numpy(), purpose


class InWorker(Dataset[RawBatch]):
    """A fetcher at the workers' end of `Sent`."""

    def __init__(self, fetch: Fetch):
        self.fetch = fetch

    def __getitem__(self, request: tuple[int, Any, Purpose]) -> RawBatch:
        epoch, rows, purpose = request
        return self.fetch[Request(epoch, torch.from_numpy(rows), purpose)]


class Loader:
    """Iterates over the batches a sampler asks for. Not a DataLoader, so that Lightning leaves the sampler alone.

    Args:
        fetch: makes a batch from a request.
        sampler: `TrainSampler` or `EvalSampler`.
        num_workers: processes that fetch ahead; 0 fetches here.
        pin_memory: put batches of workers into pinned memory, for a faster copy to a GPU.
        broken: where files that cannot be read are counted.
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
        workers.guard()
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
