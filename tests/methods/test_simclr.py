"""SimCLR: the loss equals algorithm 1 of the paper, written as a loop."""

import math

import pytest
import torch

from tests.methods.harness import random_batch, tiny_method


def test_the_loss_is_the_papers_algorithm() -> None:
    method, batch = tiny_method("simclr"), random_batch(6)
    z = []
    for k in range(6):  # z_{2k-1} and z_{2k} are the two views of image k
        z += [method.projector(method.backbone(view[k : k + 1]))[0].detach() for view in batch.views]
    s = [[float(a @ b / (a.norm() * b.norm())) for b in z] for a in z]

    def pair(i: int, j: int) -> float:
        others = sum(math.exp(s[i][k] / 0.2) for k in range(12) if k != i)
        return -math.log(math.exp(s[i][j] / 0.2) / others)

    expected = sum(pair(2 * k, 2 * k + 1) + pair(2 * k + 1, 2 * k) for k in range(6)) / 12
    assert float(method.training_step(batch, 0)["loss"].detach()) == pytest.approx(expected, abs=1e-10)


def test_the_loss_does_not_depend_on_the_order_of_images() -> None:
    method, batch = tiny_method("simclr"), random_batch(8)
    order = torch.randperm(8)
    shuffled = batch._replace(views=[view[order] for view in batch.views])
    torch.testing.assert_close(method.training_step(batch, 0)["loss"], method.training_step(shuffled, 0)["loss"])
