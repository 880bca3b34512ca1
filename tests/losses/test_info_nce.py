"""InfoNCE against MoCo's equation, with a queue and without, and its two forms against each other."""

import math
from functools import partial

import pytest
import torch

from ssl_lightning.losses.info_nce import InfoNCE
from tests.losses import reference
from tests.losses.reference import assert_close, value_and_grads

FORMS = ["matrix", "streamed"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("queue", [1, 11])
def test_equals_the_paper(form: str, temperature: float, queue: int) -> None:
    q, k, negatives = (3 * torch.randn(rows, 5, dtype=torch.float64) for rows in (6, 6, queue))
    expected = value_and_grads(partial(reference.info_nce, t=temperature), q, k, negatives)
    assert_close(value_and_grads(InfoNCE(temperature, form), q, k, negatives), expected, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 7])
def test_without_negatives_the_other_keys_are_them(form: str, batch: int) -> None:
    q, k = torch.randn(2, batch, 5, dtype=torch.float64)
    expected = value_and_grads(lambda q, k: reference.info_nce(q, k, None, 0.2), q, k) if batch > 1 else None
    seen = value_and_grads(lambda q, k: InfoNCE(0.2, form)(q, k, None), q, k)
    assert_close(seen, expected or [torch.zeros(())] + 2 * [torch.zeros(1, 5)], atol=1e-10)


@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_forms_are_equal_over_many_uneven_blocks(temperature: float, dtype: torch.dtype, rtol: float) -> None:
    q = torch.randn(700, 16, dtype=dtype)
    k = q + torch.randn_like(q)
    negatives = torch.randn(1300, 16, dtype=dtype)
    matrix = value_and_grads(InfoNCE(temperature, "matrix"), q, k, negatives)
    streamed = value_and_grads(InfoNCE(temperature, "streamed"), q, k, negatives)
    assert streamed[0].dtype == dtype
    for seen, wanted in zip(streamed, matrix, strict=True):
        assert_close([seen], [wanted], rtol * max(1.0, wanted.abs().max().item()))


@pytest.mark.parametrize("form", FORMS)
def test_closed_forms(form: str) -> None:
    same = torch.ones(4, 3, dtype=torch.float64)
    assert InfoNCE(0.1, form)(same, same, same[:3]).item() == pytest.approx(math.log(4), abs=1e-12)
    axes = torch.eye(6, dtype=torch.float64)
    expected = math.log(1 + 3 * math.exp(-1 / 0.3))
    assert InfoNCE(0.3, form)(axes[:3], axes[:3], axes[3:]).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_order_of_queries_and_of_the_queue_does_not_matter(form: str) -> None:
    q, k, negatives = (torch.randn(rows, 5, dtype=torch.float64) for rows in (6, 6, 9))
    loss = InfoNCE(0.2, form)
    order = torch.randperm(6)
    other = loss(2 * q[order], k[order], negatives[torch.randperm(9)])
    torch.testing.assert_close(other, loss(q, k, negatives), atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_only_the_query_has_a_gradient_in_moco(form: str) -> None:
    q, k, queue = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5), torch.randn(9, 5)
    InfoNCE(0.2, form)(q, k, queue).backward()
    assert q.grad is not None
    assert k.grad is None
    assert queue.grad is None


@pytest.mark.parametrize("form", FORMS)
def test_in_autocast_it_computes_in_single_precision(form: str) -> None:
    inputs = [torch.randn(rows, 8) for rows in (20, 20, 30)]
    plain = value_and_grads(InfoNCE(0.1, form), *inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = InfoNCE(0.1, form)(*inputs)
        if form == "streamed":  # whose backward pass is ours
            assert_close(value_and_grads(InfoNCE(0.1, form), *inputs), plain, atol=0)
    assert torch.equal(value, plain[0])
