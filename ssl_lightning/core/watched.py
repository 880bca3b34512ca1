"""What callbacks may read of a method, and of the evaluation that is made for them. They read nothing else of it.

`tests/callbacks/test_watched.py` holds them to it. A `LightningModule` of one's own that has what `Watched` says, and
whose steps return what stands here, trains with every callback of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypedDict, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch

# The order of what a data module's `val_dataloader` returns, and so the `dataloader_idx` of a validation step.
BANK, QUERIES = 0, 1  # the labelled items that kNN looks up; those that are scored


class StepOutput(TypedDict):
    """What a training step returns; `SSLMethod.output` packs it.

    Args:
        loss: scalar, with gradient.
        features: (V*B, D), detached, of the views that the student sees, stacked in order.
        embeddings: (2*B, P), detached, of both global views, stacked in order; (B, P) where there is one.
        watch: further scalars to log as train/<name>.

    >>> StepOutput(loss=torch.tensor(1.0), features=torch.zeros(4, 8), embeddings=torch.zeros(4, 2), watch={})["watch"]
    {}
    """

    loss: Tensor
    features: Tensor
    embeddings: Tensor
    watch: dict[str, Tensor | float]


class EmbedOutput(TypedDict):
    """What a validation step returns, for the bank and for the queries."""

    features: Tensor  # (B, D), of `embed`
    labels: Tensor  # (B,), -1 where there is none
    indices: Tensor  # (B,), -1 for an item that only makes the ranks even


class Watched(Protocol):
    """A method as callbacks see it. The first three are the method's own; the rest every `LightningModule` has."""

    # Whether a step's features are those of `embed`, of the very views it was given; True where it is not said.
    features_are_readout: bool

    def embed(self, x: Any) -> Tensor:
        """The sole readout, one view of B items -> features (B, D)."""

    def teacher_pairs(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """(student, teacher) networks; asked only by a teacher's own callback."""

    training: bool

    @property
    def device(self) -> torch.device: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def eval(self) -> Any: ...

    def log(self, name: str, value: Any, *, sync_dist: bool, add_dataloader_idx: bool) -> None: ...

    def log_dict(self, dictionary: Any, *, sync_dist: bool, add_dataloader_idx: bool) -> None: ...


class Titled(Protocol):
    """One of several trainings of a stage: what its lines of progress say. Nothing is asked of a method without it."""

    title: str

    def progress_words(self) -> list[str]:
        """What stands beside the loss."""


@runtime_checkable
class Pictured(Protocol):
    """A method with something to show."""

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """{name: columns (B, 3, H, W), normalised as images are, or uint8}, of one view of B items."""


@runtime_checkable
class HasFrozen(Protocol):
    """A module that may keep its backbone as it is."""

    frozen: bool  # whether parts of it are in evaluation mode on purpose, in training too


def watched(method: nn.Module) -> Watched:
    """The same module, as far as a callback may know it."""
    return cast(Watched, method)
