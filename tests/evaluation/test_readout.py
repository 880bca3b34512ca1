"""The linear readout of factors against the normal equations, and that it tells what is there from what is not."""

import pytest
import torch
from torch import Tensor

from ssl_lightning.evaluation.readout import RIDGES, Readout, _solved, read_factors


def read_factor(x: Tensor, y: Tensor, other: Tensor, z: Tensor) -> Readout:
    """One factor, beside another that wants another penalty: neither may change the other."""
    noise, more = torch.randn(len(x), 3), torch.randn(len(other), 3)
    found = read_factors(x, {"noise": noise, "it": y}, other, {"noise": more, "it": z})
    alone = read_factors(x, {"it": y}, other, {"it": z})
    assert alone["it"].score == pytest.approx(found["it"].score, abs=1e-9)
    return found["it"]


def test_ridge_equals_the_normal_equations() -> None:
    x, y, other = torch.randn(40, 5).double(), torch.randn(40, 2).double(), torch.randn(7, 5).double()
    for ridge, found in zip(RIDGES, _solved(x, y, other, RIDGES), strict=True):
        mean, shift = x.mean(0), y.mean(0)
        weight = torch.linalg.solve(
            (x - mean).T @ (x - mean) / 40 + ridge * torch.eye(5).double(), (x - mean).T @ (y - shift) / 40
        )
        torch.testing.assert_close(found, (other - mean) @ weight + shift, rtol=0, atol=1e-10)


def test_a_number_that_is_there_is_read_and_noise_is_not() -> None:
    x, other = torch.randn(400, 8), torch.randn(300, 8)
    weight = torch.randn(8, 2)
    found = read_factor(x, x @ weight + 3, other, other @ weight + 3)
    assert found.score == pytest.approx(1.0, abs=1e-3)
    assert found.kept == found.score
    many, more = torch.randn(4000, 8), torch.randn(4000, 8)
    half = read_factor(many, many[:, 0] + torch.randn(4000), more, more[:, 0] + torch.randn(4000))
    assert half.score == pytest.approx(0.5, abs=0.06)
    none = read_factor(x, torch.randn(400), other, torch.randn(300))
    assert none.score < 0.05
    assert none.kept < 0.05
    dead = read_factor(torch.ones(400, 8), x[:, 0], torch.ones(300, 8), other[:, 0])  # features of a collapse
    assert dead.kept < 0.02


def test_a_class_is_read_above_chance() -> None:
    y, z = torch.arange(600) % 3, torch.arange(300) % 3
    one_hot = torch.nn.functional.one_hot
    assert read_factor(one_hot(y).float(), y, one_hot(z).float(), z).score == 1.0
    none = read_factor(torch.randn(600, 4), y, torch.randn(300, 4), z)
    assert none.chance == pytest.approx(1 / 3)
    assert none.kept < 0.15
    assert Readout(0.7, 0.4).kept == pytest.approx(0.5)
    assert Readout(0.3, 0.4).kept == 0.0
