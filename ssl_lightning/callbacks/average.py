"""The moving average of the weights of a training, which is what is validated, picked and tested.

Polyak & Juditsky 1992, https://doi.org/10.1137/0330046. Lightning's own callback does the work.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from ssl_lightning.core.errors import UserError


def share_kept(decay: float, updates: int) -> float:
    """How much of the average stays at an update: less at first, so that short trainings are no mean of their start."""
    return min(decay, (1 + updates) / (10 + updates))


class Average(WeightAveraging):
    """After each optimizer step the average moves to the weights and buffers by 1 - `share_kept`.

    Args:
        decay: how much of it stays at a step, late in training, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=self._move)
        self.decay = decay

    def _move(self, average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        stays = share_kept(self.decay, int(updates))
        for mean, now in zip(average, current, strict=True):
            mean.lerp_(now.to(mean), 1 - stays) if mean.is_floating_point() else mean.copy_(now)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise a UserError for a strategy that shards the weights, of which there is then no whole copy."""
        if type(trainer.strategy).__name__ not in ("SingleDeviceStrategy", "DDPStrategy"):
            raise UserError(
                f"stage.average keeps a copy of all weights, and {type(trainer.strategy).__name__} shards them; "
                "leave one of the two out"
            )
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.to(trainer.strategy.root_device)

    @contextmanager
    def in_place(self, pl_module: LightningModule) -> Iterator[None]:
        """Inside, the module has the averaged weights."""
        self._swap_models(pl_module)
        try:
            yield
        finally:
            self._swap_models(pl_module)
