"""LARS against a loop over single parameters, step by step, and against torch's SGD where it does not adapt."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.param_groups import split_decay

STEPS = 20


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def set_gradients(module: nn.Module, step: int) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=next(module.parameters()).dtype)
    module.zero_grad()
    module(x).pow(2).sum().backward()


def rate(step: int) -> float:
    return 0.3 * (STEPS - 1 - step) / (STEPS - 1)  # ends at 0, as the schedules do


def reference_step(
    w: Tensor, v: Tensor, adapt: bool, lr: float, momentum: float, decay: float, eta: float, clip: bool
) -> None:
    """The equations of the docstring for one parameter, in Python numbers."""
    grad, norm = w.grad.flatten().tolist(), w.detach().norm().item()
    update = [g + decay * x for g, x in zip(grad, w.detach().flatten().tolist(), strict=True)]
    size = sum(u * u for u in update) ** 0.5
    trust = 1.0
    if adapt:
        trust = eta * norm / size if norm > 0 and size > 0 else 1.0
        if clip:
            trust = min(trust / lr, 1.0) if lr > 0 else 1.0
    with torch.no_grad():
        v.copy_(momentum * v + trust * torch.tensor(update, dtype=v.dtype).view_as(v))
        w -= lr * v


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("momentum", "eta"), [(0.9, 0.02), (0.0, 0.001), (0.9, 1.0)])
def test_equals_the_reference_at_every_step(clip: bool, momentum: float, eta: float) -> None:
    ours, naive = network(), network()
    options: dict[str, Any] = {"momentum": momentum, "eta": eta, "clip": clip}
    lars = LARS(split_decay(ours.named_parameters()), lr=rate(0), weight_decay=0.05, **options)
    velocity = {name: torch.zeros_like(p) for name, p in naive.named_parameters()}
    for step in range(STEPS):
        for group in lars.param_groups:
            group["lr"] = rate(step)
        set_gradients(ours, step)
        lars.step()
        set_gradients(naive, step)
        for name, p in naive.named_parameters():
            decay = 0.05 if p.ndim > 1 else 0.0
            reference_step(p, velocity[name], adapt=p.ndim > 1, lr=rate(step), decay=decay, **options)
        for p, q in zip(ours.parameters(), naive.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-13, rtol=1e-12)
    start = network()
    assert all(not torch.allclose(p, q) for p, q in zip(start.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_adaptation_it_is_sgd(momentum: float) -> None:
    ours, theirs = network(), network()
    lars = LARS(
        [{"params": ours.parameters(), "adapt": False}], lr=0.01, momentum=momentum, weight_decay=0.1, clip=True
    )
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=momentum, weight_decay=0.1)
    for step in range(STEPS):
        for module, optimizer in ((ours, lars), (theirs, sgd)):
            set_gradients(module, step)
            optimizer.step()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-14, rtol=1e-13)


def test_a_saved_state_goes_on_as_if_never_stopped(tmp_path: Any) -> None:
    straight = network(torch.float32)
    lars = LARS(split_decay(straight.named_parameters()), lr=0.1, weight_decay=1e-4, clip=True)
    for step in range(STEPS):
        if step == 7:
            torch.save((straight.state_dict(), lars.state_dict()), tmp_path / "state.pt")
        set_gradients(straight, step)
        lars.step()
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = network(torch.float32)
    resumed.load_state_dict(weights)
    again = LARS(split_decay(resumed.named_parameters()), lr=9.9)  # the saved numbers win
    again.load_state_dict(state)
    for step in range(7, STEPS):
        set_gradients(resumed, step)
        again.step()
    assert all(torch.equal(p, q) for p, q in zip(straight.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("clip", [True, False])
def test_zero_weights_and_zero_gradients_stay_finite(clip: bool) -> None:
    empty = nn.Parameter(torch.zeros(2, 2))
    still = nn.Parameter(torch.ones(2, 2))
    unused = nn.Parameter(torch.ones(2, 2))
    lars = LARS([empty, still, unused], lr=0.5, momentum=0.0, clip=clip)
    empty.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    lars.step()
    assert torch.equal(empty, torch.full((2, 2), -0.5))  # no norm to go by: the plain step
    assert torch.equal(still, torch.ones(2, 2))
    assert torch.equal(unused, torch.ones(2, 2))
    assert unused not in lars.state


def test_clip_is_never_more_than_sgd() -> None:
    p = nn.Parameter(torch.full((2, 2), 100.0))
    q = copy.deepcopy(p)
    p.grad = q.grad = torch.full((2, 2), 0.01)
    LARS([p], lr=0.1, momentum=0.0, clip=True).step()
    torch.optim.SGD([q], lr=0.1).step()
    assert torch.equal(p, q)


def test_the_closure_is_called() -> None:
    p = nn.Parameter(torch.ones(2, 2))

    def closure() -> Tensor:
        loss = p.sum()
        loss.backward()
        return loss

    assert LARS([p], lr=0.1).step(closure) == 4
    assert not torch.equal(p, torch.ones(2, 2))


def test_wrong_numbers_are_answered() -> None:
    with pytest.raises(UserError, match=r"momentum=1\.5"):
        LARS([nn.Parameter(torch.ones(1))], lr=0.1, momentum=1.5)
