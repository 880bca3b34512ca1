"""MoCo v2: the queue holds past keys only, and the loss equals a naive loop over the paper's equation."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.methods.moco import MoCo
from tests.methods.harness import random_batch, tiny_method


class Spy(nn.Module):
    """Stands in for the loss and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, q: Tensor, k: Tensor, negatives: Tensor) -> Tensor:
        self.calls.append((q.detach(), k, negatives))
        return q.sum()


def moco(symmetric: bool) -> MoCo:
    method = tiny_method("moco", (f"method.symmetric={str(symmetric).lower()}",))
    assert isinstance(method, MoCo)
    return method


def naive_info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> float:
    """Equation 1 of the paper, one query at a time."""
    total = 0.0
    for i in range(len(q)):
        query = q[i] / q[i].norm()
        positive = math.exp(float(query @ (k[i] / k[i].norm())) / temperature)
        negatives = sum(math.exp(float(query @ (n / n.norm())) / temperature) for n in queue)
        total -= math.log(positive / (positive + negatives))
    return total / len(q)


def test_the_loss_is_the_papers_equation() -> None:
    method, batch = moco(symmetric=False), random_batch(8)
    queue = method.queue.snapshot()
    q = method.projector(method.backbone(batch.views[0])).detach()
    k = method.teacher(batch.views[1])
    loss = method.training_step(batch, 0)["loss"].detach()
    assert float(loss) == pytest.approx(naive_info_nce(q, k, queue, 0.2), abs=1e-10)


def test_the_symmetric_loss_is_the_mean_of_both_directions() -> None:
    batch = random_batch(8)
    method = moco(symmetric=False)
    there = method.training_step(batch, 0)["loss"]
    method = moco(symmetric=False)
    back = method.training_step(batch._replace(views=batch.views[::-1]), 0)["loss"]
    both = moco(symmetric=True).training_step(batch, 0)["loss"]
    torch.testing.assert_close(both, (there + back) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
def test_no_image_meets_its_own_key_among_the_negatives(symmetric: bool) -> None:
    method, spy = moco(symmetric), Spy()
    method.loss = spy
    for step in range(6):
        batch = random_batch(8, seed=step)
        own = torch.cat([method.keys(view) for view in batch.views])
        method.training_step(batch, step)
        for _, _, negatives in spy.calls:
            assert (negatives @ own.T).max() < 1 - 1e-9
        spy.calls.clear()


def test_the_queue_holds_the_last_keys_oldest_out_first() -> None:
    method = moco(symmetric=False)
    keys = normalize(torch.randn(5 * 8, 5, dtype=torch.float64))
    for step in range(5):
        method.queue.push(keys[step * 8 : (step + 1) * 8])
        newest = keys[: (step + 1) * 8][-16:]
        start = int(method.queue.pointer) - len(newest)
        held = method.queue.vectors[torch.arange(start, start + len(newest)) % 16]
        assert torch.equal(held, newest)


def test_a_batch_larger_than_the_queue_leaves_its_last_keys() -> None:
    method = moco(symmetric=False)
    keys = normalize(torch.randn(21, 5, dtype=torch.float64))
    method.queue.push(keys)
    assert torch.equal(method.queue.vectors, keys[-16:])


def test_the_gradient_is_right_though_the_queue_moved_on() -> None:
    method, batch = moco(symmetric=True), random_batch(8)
    loss = method.training_step(batch, 0)["loss"]  # the queue has changed by now
    loss.backward()
    found = method.backbone[0].weight.grad[0, 0, 0, 0].item()
    values = []
    for shift in (1e-6, -1e-6):
        other = moco(symmetric=True)
        with torch.no_grad():
            other.backbone[0].weight[0, 0, 0, 0] += shift
        values.append(float(other.training_step(batch, 0)["loss"].detach()))
    assert found == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-8)
