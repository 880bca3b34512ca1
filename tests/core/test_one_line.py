"""What Lightning, torch and the system say of wrong arguments is one line; a bug keeps its traceback."""

import errno
import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.__main__ import main
from ssl_lightning.callbacks.reseed import Reseed
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.core import one_line
from ssl_lightning.core.errors import UserError
from ssl_lightning.methods import simclr
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import Constant

TINY = [
    *("data.size=64", "data.test_size=16", "data.batch_size=16", "backbone.width=4", "trainer.max_epochs=1"),
    *("method.projector.hidden_dim=8", "method.projector.out_dim=4", "stage.judge=false", "callbacks=minimal"),
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "name=a"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(words: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused and leaves nothing."""
    assert main([*TINY, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    assert not (here / "runs").exists()
    return said


# ---- while something is built


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.strategy=abc"], "invalid strategy name"),
        (["trainer.max_time=soon"], "not a valid duration"),
        (["trainer.profiler=abc"], "profiler"),
        (["trainer.accelerator=tpu"], "torch_xla"),
        (["trainer.limit_train_batches=0.01"], "Try at least"),
        (["+trainer.val_check_interval=1000"], "val_check_interval"),
        (["optimizer.optimizer.betas=[2,3]"], "optimizer: Invalid beta"),
        (["+optimizer.optimizer.lr=1"], "set optimizer.base_lr"),
        (["+optimizer.optimizer.eps=-1"], "optimizer: Invalid epsilon"),
        (["backbone.width=1000000"], "memory left"),
        (["resume=never", "data.batch_size=65"], "data.batch_size"),
        (["logger=tensorboard", "data.batch_size=65"], "data.batch_size"),
        (["callbacks=default", "trainer.limit_train_batches=0.01"], "Try at least"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_one_line_and_leaves_no_folder(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(words, here, capsys)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "use trainer=cpu" in refusal(["trainer=gpu", "trainer.accelerator=gpu"], here, capsys)


def test_a_constructor_s_error_names_the_class_and_the_place() -> None:
    node = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 3, "groups": 2}
    with pytest.raises(UserError, match=r"^nn.Conv2d\(in_channels=3, .*groups=2\): in_channels must be divisible"):
        instantiate(node)


def test_a_constructor_of_the_user_s_own_keeps_its_traceback() -> None:
    def mine(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        OptimizerRecipe(mine, 0.1, 0.0, Constant())
    with pytest.raises(UserError, match=r"optimizer: .*[Nn]esterov"):
        OptimizerRecipe(functools.partial(torch.optim.SGD, nesterov=True), 0.1, 0.0, Constant())


# ---- while a network trains


def a_bug(what: str) -> Any:
    """A function with a bug that stands, as its traceback says, in a file of the package."""
    names: dict[str, Any] = {"torch": torch, "__name__": "ssl_lightning.methods.simclr"}
    exec(compile(f"def bug(self, *args, **kwargs):\n    {what}", simclr.__file__, "exec"), names)
    return names["bug"]


@pytest.mark.parametrize(
    ("owner", "hook", "what", "error"),
    [
        (SimCLR, "training_step", "torch.zeros(2, 3) @ torch.zeros(2, 3)", RuntimeError),
        (SimCLR, "training_step", "return self.log('a', 'text')", ValueError),  # of Lightning's own
        (Reseed, "on_train_batch_start", "{}['key']", KeyError),
        (Reseed, "on_fit_start", "None.thing", AttributeError),
    ],
)
def test_a_bug_in_a_training_keeps_its_traceback(
    owner: Any, hook: str, what: str, error: type[Exception], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, hook, a_bug(what))
    with pytest.raises(error):
        main(TINY)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"),
            "the GPU has no memory left",
        ),
        (RuntimeError("CUDA error: out of memory"), "the GPU has no memory left"),
        (
            RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"),
            "this machine has no mem",
        ),
        (RuntimeError("thing_cuda does not have a deterministic implementation, but you set"), "deterministic=warn"),
        (MemoryError(), "this machine has no memory left (MemoryError); use a smaller data.batch_size"),
        (OSError(errno.ENOSPC, "No space left on device"), "is full; free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "is full; free some space"),
        (
            OSError(errno.EROFS, "Read-only file system", "runs/a/view_mosaic.png"),
            "cannot write runs/a/view_mosaic.png",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a/x"), "choose another folder with runs_dir="),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_what_no_step_can_mend_is_told_in_one_line_in_the_middle_of_a_training(
    error: Exception, message: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(SimCLR, "training_step", full)
    assert message in refusal([], here, capsys)


def test_what_is_no_room_of_the_run_s_own_is_left_alone(tmp_path: Path) -> None:
    other = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/x")
    for error in (other, OSError(errno.EIO, "bad"), ValueError("a bug"), RuntimeError("a bug")):
        assert one_line.of_run(error, tmp_path) is None


def test_a_run_that_was_set_aside_comes_back_when_the_new_one_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = here / "runs" / "a"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{name: a, seed: 0, resume: auto, data: {}, trainer: {}}")
    (run / "results.json").write_text("{}")
    assert main([*TINY, "resume=never", "trainer.strategy=abc"]) == 2
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*")) == [
        *("runs", "runs/a", "runs/a/config.yaml", "runs/a/results.json")
    ]
