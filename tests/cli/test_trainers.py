"""The trainers that the stages get: their callbacks keep every hook that does something, and lose only empty ones."""

from pathlib import Path
from typing import Any

import pytest
from lightning import Callback
from lightning.fabric.plugins.environments import SLURMEnvironment

from ssl_lightning.cli.trainers import HOOKS_OF_A_STEP, TrainerFactory, pass_over
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.launch import here, settle
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


@pytest.mark.parametrize(
    ("environ", "asked", "devices", "index", "node"),
    [
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_TASKS_PER_NODE": "2(x2)"}, 1, 2, 1, 1),
        (
            {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_TASKS_PER_NODE": "3,1"}
            | {"SLURM_NODELIST": "a,b"},
            1,
            1,
            0,
            2,
        ),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 2, 2, 1, 0),
        ({}, 1, 1, 0, 0),
    ],
)
def test_lightning_is_told_which_process_this_is(
    environ: Any, asked: int, devices: int, index: int, node: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    _, trainer = settle(here(), {"accelerator": "cpu", "devices": asked, "num_nodes": 1})
    made = TrainerFactory({"trainer": trainer, "logger": None}, tmp_path)(callbacks=[])
    world = int(environ.get("SLURM_NTASKS", environ.get("WORLD_SIZE", "1")))
    assert (made.num_devices, made.num_devices * made.num_nodes) == (devices, world)
    told = made._accelerator_connector.cluster_environment
    assert (told.local_rank(), told.node_rank(), told.world_size()) == (index, node, world)
    assert told.global_rank() == int(environ.get("SLURM_PROCID", environ.get("RANK", "0")))
    assert not isinstance(told, SLURMEnvironment)  # it would take signals over


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategy": "dpp"}, "You selected an invalid strategy name"),
        ({"devices": "abc"}, "should be an int"),
        ({"devices": -1}, "should be an int"),
    ],
)
def test_what_lightning_says_of_its_arguments_is_one_line(wrong: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"trainer: .*{said}"):
        TrainerFactory({"trainer": {"accelerator": "cpu", **wrong}}, tmp_path)(callbacks=[])
