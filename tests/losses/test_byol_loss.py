"""BYOL's loss against the paper's squared distance."""

import pytest
import torch

from ssl_lightning.losses.byol import BYOLLoss
from tests.losses import reference
from tests.losses.reference import assert_close, value_and_grads


def test_equals_the_paper() -> None:
    p, t = torch.randn(2, 7, 5, dtype=torch.float64) * 4
    expected = value_and_grads(lambda p: reference.byol(p, t), p)
    assert_close(value_and_grads(lambda p: BYOLLoss()(p, t), p), expected, atol=1e-10)


def test_nothing_flows_to_the_teacher() -> None:
    p, t = torch.randn(2, 7, 5)
    t.requires_grad_()
    loss = BYOLLoss()(p.requires_grad_(), t)
    loss.backward()
    assert t.grad is None


@pytest.mark.parametrize(("angle", "expected"), [(1.0, 0.0), (0.0, 2.0), (-1.0, 4.0)])
def test_closed_forms(angle: float, expected: float) -> None:
    p = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    t = torch.tensor([[angle, 1.0 - abs(angle)]], dtype=torch.float64)
    assert BYOLLoss()(p, t).item() == pytest.approx(expected, abs=1e-12)


def test_in_autocast_it_computes_in_single_precision() -> None:
    p, t = torch.randn(2, 7, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = BYOLLoss()(p.bfloat16(), t.bfloat16())
    assert low.dtype == torch.float32
    assert torch.equal(low, BYOLLoss()(p.bfloat16().float(), t.bfloat16().float()))
