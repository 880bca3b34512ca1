"""Where a run is in its data, and how the items of a step are shared among the ranks of today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ssl_lightning.core import distributed
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import TrainSampler

if TYPE_CHECKING:
    from ssl_lightning.data.loader import Loader


class Position:
    """The part of a data module that tells and takes up its position; its state is counted in items."""

    noun: ClassVar[str]
    batch_size: int
    trainer: Any
    _loaders: list[Loader]
    _start: tuple[int, int]

    def position(self) -> tuple[int, int]:
        """(epoch, batches of it already trained), from the trainer's own count of trained batches.

        The count is `processed`, which a batch interrupted halfway does not raise: it will be trained again.
        """
        if self.trainer is None or self.trainer.num_training_batches in (0, float("inf")):
            return self._start
        if self.trainer.overfit_batches:
            return 0, 0  # the very same batches in every epoch
        trained = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return divmod(trained, int(self.trainer.num_training_batches))

    def state_dict(self) -> dict[str, Any]:
        """Where we are, in items over all ranks: with another number of devices that is the same place."""
        epoch, batch = self.position()
        ranks = distributed.world_size()
        step = self.batch_size * ranks
        return {"epoch": epoch, f"{self.noun}s": batch * step, f"{self.noun}s_per_step": step, "ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "batch" in state_dict:  # of an older version
            self._start = (state_dict["epoch"], state_dict["batch"])
            return
        step = state_dict[f"{self.noun}s_per_step"]
        self._keep(step, state_dict["ranks"])
        self._start = (state_dict["epoch"], state_dict[f"{self.noun}s"] // step)

    def _keep(self, step: int, before: int) -> None:
        """Shares the items of a step among the ranks of today, however many there were `before`."""
        ranks = distributed.world_size()
        if self.batch_size * ranks == step:
            return
        made = f"the checkpoint was made with {step} {self.noun}s a step on {before} device{'s' * (before > 1)}"
        if ranks == before:
            raise UserError(f"{made}, and this run has {self.batch_size * ranks}; set batch_size={step // ranks}")
        if step % ranks:
            raise UserError(
                f"{made}, and {ranks} devices cannot divide that equally; choose a number that divides {step}"
            )
        if any(isinstance(loader.requests, TrainSampler) for loader in self._loaders):
            raise UserError(f"{made}; for {ranks} set batch_size={step // ranks}")  # too late to change it here
        self.batch_size = step // ranks
        if distributed.is_main():
            print(f"{made}; now each of {ranks} takes {self.batch_size}")
