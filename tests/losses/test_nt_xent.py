"""NT-Xent against the paper's equation, and its two forms against each other."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.nt_xent import NTXent
from tests.losses import reference
from tests.losses.reference import assert_close, value_and_grads

FORMS = ["matrix", "streamed"]


def views(batch: int, dim: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Partners that are alike, of all lengths: nothing may rest on unit input."""
    z = torch.randn(batch, dim, dtype=dtype)
    length = torch.rand(2, batch, 1, dtype=dtype) * 9 + 0.1
    return z * length[0], (z + 0.7 * torch.randn_like(z)) * length[1]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
@pytest.mark.parametrize("batch", [1, 7])
def test_equals_the_paper(form: str, temperature: float, batch: int) -> None:
    z = views(batch, 5)
    expected = value_and_grads(partial(reference.nt_xent, t=temperature), *z)
    assert_close(value_and_grads(NTXent(temperature, form), *z), expected, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.02, 0.05, 0.2])  # 0.02: rows in float32, pairs in float64
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_forms_are_equal_over_many_uneven_blocks(temperature: float, dtype: torch.dtype, atol: float) -> None:
    z = views(600, 16, dtype)  # 1200 rows: two whole blocks and a part
    matrix = value_and_grads(NTXent(temperature, "matrix"), *z)
    streamed = value_and_grads(NTXent(temperature, "streamed"), *z)
    assert streamed[0].dtype == streamed[1].dtype == dtype
    assert_close(streamed, matrix, atol)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [0.01, 0.0225, 0.025, 0.027])
def test_where_single_precision_would_underflow(form: str, temperature: float) -> None:
    """At t = 0.01 opposite views are 200 apart in the exponent: e^-200 is 0 in float32. Both sides of the limit."""
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    z2 = torch.tensor([[-1.0, 1e-3], [-0.2, -1.0]])
    expected = value_and_grads(partial(reference.nt_xent, t=temperature), z1.double(), z2.double())
    assert expected[0] > 1 / temperature
    for seen, wanted in zip(value_and_grads(NTXent(temperature, form), z1, z2), expected, strict=True):
        torch.testing.assert_close(seen, wanted.float(), rtol=1e-5, atol=1e-4)
    lone = value_and_grads(NTXent(temperature, form), z1[:1], z2[:1])  # the only candidate lies opposite
    assert_close(lone, [torch.zeros(()), torch.zeros(1, 2), torch.zeros(1, 2)], atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_closed_forms(form: str) -> None:
    same = torch.ones(6, 3, dtype=torch.float64)
    assert NTXent(0.1, form)(same, same).item() == pytest.approx(math.log(11), abs=1e-12)
    axes = torch.eye(4, dtype=torch.float64)  # partners equal, all others at right angles
    expected = math.log(1 + 6 * math.exp(-1 / 0.3))
    assert NTXent(0.3, form)(axes, 5 * axes).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_order_and_length_do_not_matter(form: str) -> None:
    z1, z2 = views(9, 4)
    loss = NTXent(0.2, form)
    order = torch.randperm(9)
    for other in (loss(z1[order], z2[order]), loss(z2, z1), loss(3 * z1, z2 / 7)):
        torch.testing.assert_close(other, loss(z1, z2), atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_in_autocast_it_computes_in_single_precision(form: str) -> None:
    z1, z2 = views(20, 8, torch.float32)
    plain = value_and_grads(NTXent(0.1, form), z1, z2)
    leaves = [z.clone().requires_grad_() for z in (z1, z2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = NTXent(0.1, form)(*leaves)
        low = NTXent(0.1, form)(z1.bfloat16(), z2.bfloat16())
        if form == "streamed":  # whose backward pass is ours
            assert_close(value_and_grads(NTXent(0.1, form), z1, z2), plain, atol=0)
    assert_close([value.detach(), *torch.autograd.grad(value, leaves)], plain, atol=0)
    assert low.dtype == torch.float32
    assert torch.equal(low, NTXent(0.1, form)(z1.bfloat16().float(), z2.bfloat16().float()))


def test_wrong_arguments_are_answered() -> None:
    with pytest.raises(UserError, match="temperature is 0; it must be above 0"):
        NTXent(temperature=0)
    with pytest.raises(UserError, match="form is 'rows'; choose one of streamed, matrix"):
        NTXent(form="rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'z2': \(1, 4\)"):
        NTXent()(torch.randn(3, 4), torch.randn(1, 4))
