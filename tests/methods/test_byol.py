"""BYOL: the loss equals equations 2 and 3 of the paper, and the teacher gets no gradient."""

import pytest
import torch

from tests.methods.harness import random_batch, tiny_method


def test_the_loss_is_the_papers_equation() -> None:
    method, batch = tiny_method("byol"), random_batch(8)
    x1, x2 = batch.views
    total = 0.0
    for student_view, teacher_view in ((x1, x2), (x2, x1)):
        for i in range(8):
            q = method.predictor(method.projector(method.backbone(student_view[i : i + 1])))[0]
            t = method.teacher(teacher_view[i : i + 1])[0]
            total += float(((q / q.norm() - t / t.norm()) ** 2).sum().detach()) / 8
    assert float(method.training_step(batch, 0)["loss"].detach()) == pytest.approx(total, abs=1e-10)


def test_the_loss_is_blind_to_the_scale_of_predictions() -> None:
    method, batch = tiny_method("byol"), random_batch(8)
    before = method.training_step(batch, 0)["loss"]
    with torch.no_grad():
        method.predictor[-1].weight *= 3
        method.predictor[-1].bias *= 3
    torch.testing.assert_close(method.training_step(batch, 0)["loss"], before)


def test_the_loss_is_zero_when_the_student_says_what_the_teacher_says() -> None:
    method, batch = tiny_method("byol"), random_batch(8)
    method.predictor = torch.nn.Identity()
    same = batch._replace(views=[batch.views[0], batch.views[0]])
    assert float(method.training_step(same, 0)["loss"].detach()) == pytest.approx(0.0, abs=1e-12)
