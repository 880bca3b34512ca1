"""The trainers that the stages get: their callbacks keep every hook that does something, and lose only empty ones."""

from pathlib import Path
from typing import Any

import pytest
from lightning import Callback

from ssl_lightning.trainers import HOOKS_OF_A_STEP, TrainerFactory, pass_over
from tests.callbacks.toy import ToyMethod, fit


class Counting(Callback):
    """Counts its hooks' calls; one is put on the instance."""

    def __init__(self) -> None:
        self.called: dict[str, int] = {}
        self.on_after_backward = lambda *args: self.count("on_after_backward")  # type: ignore[method-assign]

    def count(self, hook: str) -> None:
        self.called[hook] = self.called.get(hook, 0) + 1

    def on_train_batch_end(self, *args: Any) -> None:
        self.count("on_train_batch_end")


class Heir(Counting):
    """Inherits a hook, and has another."""

    def on_before_zero_grad(self, *args: Any) -> None:
        self.count("on_before_zero_grad")


def test_hooks_that_do_something_are_called_as_before(tmp_path: Path) -> None:
    plain, spared = Heir(), Heir()
    pass_over([spared])
    fit(ToyMethod(), tmp_path / "plain", [plain], max_epochs=2)
    fit(ToyMethod(), tmp_path / "spared", [spared], max_epochs=2)
    assert set(plain.called) == {"on_after_backward", "on_train_batch_end", "on_before_zero_grad"}
    assert spared.called == plain.called


@pytest.mark.parametrize("hook", HOOKS_OF_A_STEP)
def test_a_stage_s_trainer_passes_over_the_empty_hooks(tmp_path: Path, hook: str) -> None:
    counting = Counting()
    made = TrainerFactory({"trainer": {"accelerator": "cpu", "logger": False}}, tmp_path)(callbacks=[counting])
    assert counting in made.callbacks
    assert callable(getattr(counting, hook)) == (hook in {"on_after_backward", "on_train_batch_end"})
