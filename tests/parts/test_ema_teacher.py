"""EMATeacher against a plain float64 loop: accumulation, resume, counters, and what the checkpoint holds."""

import copy
import itertools
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from timm.layers import DropPath
from torch import nn

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.core.errors import UserError
from ssl_lightning.parts.ema_teacher import EMATeacher, frozen_copy
from tests.callbacks.toy import ToyData, ToyMethod, fit


class Recorder(Callback):
    """The student after each optimizer step, taken before any teacher moves (it stands first in the list)."""

    def __init__(self) -> None:
        self.students: list[list[torch.Tensor]] = []
        self.step = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            self.students.append([p.detach().double().clone() for p in pl_module.backbone.parameters()])


def reference(start: list[torch.Tensor], students: list[list[torch.Tensor]], m0: float, m1: float, total: int):
    """The update of BYOL, section 3.1, one parameter at a time."""
    teacher = [p.clone() for p in start]
    for k, student in enumerate(students):
        m = m1 - (m1 - m0) * (math.cos(math.pi * k / total) + 1) / 2
        for i in range(len(teacher)):
            teacher[i] = m * teacher[i] + (1 - m) * student[i]
    return teacher


@pytest.mark.parametrize(("accumulate", "final"), [(1, 1.0), (2, 1.0), (3, 0.9)])
def test_equals_a_plain_loop_over_optimizer_steps(tmp_path: Path, accumulate: int, final: float) -> None:
    method = ToyMethod(teacher=EMATeacher(0.9, final))
    start = [p.detach().double().clone() for p in method.backbone.parameters()]
    recorder = Recorder()
    trainer = fit(method, tmp_path, [recorder], max_epochs=2, accumulate_grad_batches=accumulate)
    assert len(recorder.students) == trainer.global_step < 2 * ToyData.BATCHES + (accumulate == 1)
    expected = reference(start, recorder.students, 0.9, final, trainer.global_step)
    for teacher, value in zip(method.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(teacher.double(), value, rtol=1e-5, atol=1e-6)
    assert any((t - s).abs().max() > 1e-3 for t, s in zip(method.teacher.parameters(), method.backbone.parameters()))


def test_momentum_rises_along_the_cosine_and_is_constant_when_told_so() -> None:
    teacher = EMATeacher(0.996, 1.0)
    values = [teacher.current(k, 100) for k in range(101)]
    assert values[0] == 0.996
    assert values[100] == 1.0
    assert values[50] == pytest.approx(0.998)
    assert all(a < b for a, b in itertools.pairwise(values))
    assert teacher.current(120, 100) == 1.0
    assert {EMATeacher(0.99, 0.99).current(k, 100) for k in range(101)} == {0.99}


def test_momentum_may_rise_along_a_line() -> None:
    teacher = EMATeacher(0.996, 1.0, rise="linear")
    for step, expected in [(0, 0.996), (25, 0.997), (50, 0.998), (100, 1.0), (120, 1.0)]:
        assert teacher.current(step, 100) == pytest.approx(expected, abs=1e-12)


def test_integer_buffers_are_copied_and_float_buffers_left_alone() -> None:
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    method = ToyMethod()
    method.teacher_pairs = lambda: [(student, teacher)]  # type: ignore[method-assign]
    teacher = frozen_copy(student)
    for _ in range(4):
        student(torch.randn(8, 3))
    statistics = teacher[1].running_mean.clone()
    ema = EMATeacher(0.9, 0.9)
    ema._collect(method)
    ema.move(0.9)
    assert teacher[1].num_batches_tracked.item() == 4
    assert teacher[1].num_batches_tracked.dtype == torch.int64
    assert torch.equal(teacher[1].running_mean, statistics)
    assert not torch.equal(student[1].running_mean, statistics)


def test_resumed_run_goes_on_with_the_momentum_of_its_step(tmp_path: Path) -> None:
    whole = ToyMethod(teacher=EMATeacher(0.5, 1.0))
    start = copy.deepcopy(whole.state_dict())
    fit(whole, tmp_path / "whole", [], max_epochs=4)

    first = ToyMethod(teacher=EMATeacher(0.5, 1.0))
    first.load_state_dict(start)
    stop = StopAfter(2)
    fit(first, tmp_path / "part", [stop, Checkpoint(tmp_path / "part")], max_epochs=4)
    second = ToyMethod(teacher=EMATeacher(0.5, 1.0))
    fit(second, tmp_path / "part", [], max_epochs=4, ckpt_path=tmp_path / "part/checkpoints/last.ckpt")
    assert not torch.equal(first.teacher[0].weight, whole.teacher[0].weight)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


class StopAfter(Callback):
    """Ends a run at the end of its n-th epoch, as a stop from outside would."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


@pytest.mark.parametrize("ours", [True, False])
def test_checkpoint_holds_the_teacher_after_its_update(tmp_path: Path, ours: bool) -> None:
    method = ToyMethod(teacher=EMATeacher(0.9, 1.0))
    if ours:
        saver: Callback = Checkpoint(tmp_path, every_n_steps=1)
        path = tmp_path / "checkpoints/last.ckpt"
    else:
        saver = ModelCheckpoint(tmp_path, filename="m", every_n_train_steps=1)
        path = tmp_path / "m.ckpt"
    method_state: dict[str, torch.Tensor] = {}

    class Keep(Callback):
        """After a batch everything has moved; at the start of the next one the state must be that of the file."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 3:
                method_state.update({k: v.clone() for k, v in pl_module.state_dict().items()})
                saved.update(torch.load(path, weights_only=True))

    saved: dict = {}
    fit(method, tmp_path, [saver, Keep()], max_epochs=1)
    assert saved["global_step"] == 3
    for name, value in method_state.items():
        assert torch.equal(saved["state_dict"][name], value), name


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="momentum <= final_momentum"):
        EMATeacher(1.0, 0.9)
    with pytest.raises(UserError, match="rise=cosine or rise=linear, not square"):
        EMATeacher(rise="square")  # type: ignore[arg-type]
    trainable = ToyMethod(teacher=EMATeacher())
    trainable.teacher.requires_grad_(True)
    with pytest.raises(UserError, match=r"'0\.weight' requires a gradient; make the teacher with frozen_copy"):
        fit(trainable, tmp_path, [], max_epochs=1)
    coarse = ToyMethod(teacher=EMATeacher()).bfloat16()
    with pytest.raises(UserError, match="bf16-mixed"):
        coarse.ema._collect(coarse)
    with pytest.raises(UserError, match=r"trainer\.max_epochs or trainer\.max_steps"):
        fit(ToyMethod(teacher=EMATeacher()), tmp_path, [], max_epochs=-1)


def test_a_teacher_drops_nothing() -> None:
    student = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), DropPath(0.5)).train()
    teacher, x = frozen_copy(student), torch.randn(64, 4)
    assert torch.equal(teacher(x), student[0](x))
    assert not torch.equal(student(x), student[0](x))
