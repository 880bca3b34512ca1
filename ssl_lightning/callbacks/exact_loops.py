"""Lightning's fit loops, made to go on from a checkpoint of a batch's end exactly there: with what follows that batch.

For Lightning nothing is left to do for a batch whose state was saved in `on_train_batch_end`. But the validation that
is due after it, the hooks of the epoch's end and, at the last step, those of the run's end come later: a run that was
stopped there would never make them up.
"""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from ssl_lightning.core.watched import HasFrozen


class ExactEpochLoop(_TrainingEpochLoop):
    """Where the state is that of a batch's end, the first turn of the loop is the rest of that batch's turn."""

    unfinished = False  # the batch is trained, what follows it is still to be done

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        super().load_state_dict(state_dict, prefix)
        total: Any = self.batch_progress.total
        self.unfinished = total.processed == total.ready == total.completed + 1
        if self.unfinished:
            self.batch_progress.increment_completed()

    @property
    def done(self) -> bool:
        return not self.unfinished and super().done

    def advance(self, data_fetcher: Any) -> None:
        if self.unfinished:
            self.val_loop.restarting = False  # the validation that may follow has not begun
        else:
            super().advance(data_fetcher)

    def on_advance_end(self, data_fetcher: Any) -> None:
        self.unfinished = False
        super().on_advance_end(data_fetcher)


class ExactFitLoop(_FitLoop):
    """Runs, too, where all steps are made and only the end of the last one is left."""

    @property
    def done(self) -> bool:
        return not getattr(self.epoch_loop, "unfinished", False) and super().done

    def _warn_if_modules_in_eval_mode(self) -> None:
        module = self.trainer.lightning_module
        if not (isinstance(module, HasFrozen) and module.frozen):
            super()._warn_if_modules_in_eval_mode()


def make_exact(trainer: Trainer) -> None:
    """Give a trainer these loops. By class, since the loops hold the data by the time that callbacks are set up."""
    if type(trainer.fit_loop) is _FitLoop and type(trainer.fit_loop.epoch_loop) is _TrainingEpochLoop:
        trainer.fit_loop.__class__ = ExactFitLoop
        trainer.fit_loop.epoch_loop.__class__ = ExactEpochLoop
