"""The losses of the joint-embedding methods against the papers' equations, in value and gradient."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.barlow_twins import BarlowTwinsLoss
from ssl_lightning.losses.dcl import DCL
from ssl_lightning.losses.hard_negative import HardNegative
from ssl_lightning.losses.info_nce import InfoNCE
from ssl_lightning.losses.nt_xent import NTXent
from ssl_lightning.losses.ressl import ReSSLLoss
from ssl_lightning.losses.sig_reg import SIGReg
from ssl_lightning.losses.sup_con import SupConLoss
from ssl_lightning.losses.swav import SwAVLoss
from ssl_lightning.losses.tico import TiCoLoss
from ssl_lightning.losses.vicreg import VICRegLoss
from ssl_lightning.losses.w_mse import WMSELoss
from ssl_lightning.parts.kmeans import assign, spherical_kmeans
from ssl_lightning.parts.sinkhorn import sinkhorn
from tests.losses import reference
from tests.losses import reference_joint as paper
from tests.losses.reference import assert_close, value_and_grads

Loss = Callable[..., Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Rows of all lengths: nothing may rest on unit input."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x * (torch.rand((*shape[:-1], 1), generator=generator, dtype=torch.float64) * 4 + 0.2)


Z1, Z2, QUEUE = drawn(8, 5), drawn(8, 5, seed=1), drawn(11, 5, seed=2)
LABELS = torch.tensor([0, 1, 0, -1, 2, 1, -1, 0])
DIRECTIONS = normalize(drawn(5, 4, seed=3), dim=0)
COVARIANCE = drawn(5, 5, seed=4).T @ drawn(5, 5, seed=4)
CODES = drawn(8, 5, seed=5).softmax(1)


def swav_of(z: Tensor, *rest: Tensor, loss: Loss) -> Tensor:
    return loss([z, *rest], [CODES.to(z.dtype), CODES.flip(0).to(z.dtype)])


# name: (ours, the paper's, inputs)
CASES: dict[str, tuple[Loss, Loss, tuple[Tensor, ...]]] = {
    "dcl": (DCL(0.1), partial(paper.dcl, t=0.1), (Z1, Z2)),
    "dclw": (DCL(0.3, sigma=0.5), partial(paper.dclw, t=0.3, sigma=0.5), (Z1, Z2)),
    "dcl, queue": (DCL(0.2), partial(paper.dcl_queue, t=0.2), (Z1, Z2, QUEUE)),
    "dcl, keys": (
        lambda q, k: DCL(0.2)(q, k, None),
        partial(paper.dcl_queue, negatives=None, t=0.2),
        (Z1, Z2),
    ),
    "dclw, queue": (DCL(0.2, 0.3), partial(paper.dclw_queue, t=0.2, sigma=0.3), (Z1, Z2, QUEUE)),
    "hard negatives": (HardNegative(), partial(paper.hard_negative, t=0.5, beta=1.0, tau_plus=0.1), (Z1, Z2)),
    "harder negatives": (
        HardNegative(0.2, 2.0, 0.3),
        partial(paper.hard_negative, t=0.2, beta=2.0, tau_plus=0.3),
        (Z1, Z2),
    ),
    "hard negatives, clamped": (
        HardNegative(0.5, 1.0, 0.9),
        partial(paper.hard_negative, t=0.5, beta=1.0, tau_plus=0.9),
        (Z1, Z1 + 0.1 * Z2),
    ),
    "hard negatives, queue": (
        HardNegative(0.2),
        partial(paper.hard_negative_queue, t=0.2, beta=1.0, tau_plus=0.1),
        (Z1, Z2, QUEUE),
    ),
    "sup_con": (
        lambda a, b: SupConLoss(0.1)(a, b, LABELS),
        partial(paper.sup_con, labels=LABELS, t=0.1),
        (Z1, Z2),
    ),
    "sup_con, inside": (
        lambda a, b: SupConLoss(0.1, "in")(a, b, LABELS),
        partial(paper.sup_con_in, labels=LABELS, t=0.1),
        (Z1, Z2),
    ),
    "barlow_twins": (BarlowTwinsLoss(), partial(paper.barlow_twins, lam=0.0051, scale=0.1), (Z1, Z2)),
    "vicreg": (VICRegLoss(), partial(paper.vicreg, invariance=25, variance=25, covariance=1), (0.4 * Z1, 0.4 * Z2)),
    "w_mse": (WMSELoss(8), partial(paper.w_mse, size=8, eps=0.0), (Z1, Z2)),
    "w_mse, slices": (WMSELoss(4, 0.2), partial(paper.w_mse, size=4, eps=0.2), (Z1, Z2)),
    "sig_reg": (
        lambda z: SIGReg()(z, DIRECTIONS),
        partial(paper.sig_reg, directions=DIRECTIONS, knots=33, limit=3.0),
        (Z1,),
    ),
    "sig_reg, the paper's rule": (
        lambda z: SIGReg(knots=9, limit=5.0)(z, DIRECTIONS),
        partial(paper.sig_reg, directions=DIRECTIONS, knots=17, limit=5.0),
        (Z1,),
    ),
    "swav": (
        partial(swav_of, loss=SwAVLoss(0.1)),
        partial(swav_of, loss=partial(paper.swav, t=0.1)),
        (Z1, Z2, drawn(8, 5, seed=6)),
    ),
    "info_nce, scaled": (
        InfoNCE(0.2, scaled=True),
        lambda q, k, n: 0.4 * reference.info_nce(q, k, n, 0.2),
        (Z1, Z2, QUEUE),
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_equals_the_paper(name: str) -> None:
    ours, theirs, inputs = CASES[name]
    assert_close(value_and_grads(ours, *inputs), value_and_grads(theirs, *inputs), atol=1e-10)


@pytest.mark.parametrize("name", list(CASES))
def test_in_autocast_it_computes_in_single_precision(name: str) -> None:
    ours, _, inputs = CASES[name]
    single = [x.float() for x in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(*single)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ours(*single), rtol=0, atol=0)


def test_ressl_equals_the_paper() -> None:
    ours = value_and_grads(lambda z: ReSSLLoss()(z, Z2, QUEUE), Z1)
    assert_close(ours, value_and_grads(lambda z: paper.ressl(z, Z2, QUEUE, 0.1, 0.04), Z1), atol=1e-10)


def test_tico_equals_the_paper_and_hands_over_the_covariance() -> None:
    ours = value_and_grads(lambda z: TiCoLoss()(z, Z2, COVARIANCE)[0], Z1)
    assert_close(ours, value_and_grads(lambda z: paper.tico(z, Z2, COVARIANCE, 0.9, 8.0)[0], Z1), atol=1e-10)
    new, expected = TiCoLoss()(Z1, Z2, COVARIANCE)[1], paper.tico(Z1, Z2, COVARIANCE, 0.9, 8.0)[1]
    torch.testing.assert_close(new, expected, atol=1e-12, rtol=0)


def test_no_gradient_goes_to_a_teacher() -> None:
    t = Z2.clone().requires_grad_()
    for loss in (ReSSLLoss()(Z1.clone().requires_grad_(), t, QUEUE), TiCoLoss()(Z1, t, COVARIANCE)[0]):
        assert not loss.requires_grad or torch.autograd.grad(loss, t, allow_unused=True) == (None,)


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.5, 1), (1.0, 10)])
def test_sinkhorn_equals_the_paper(epsilon: float, iterations: int) -> None:
    scores = normalize(drawn(8, 6), dim=1)
    seen = sinkhorn(scores, epsilon, iterations)
    torch.testing.assert_close(seen, paper.sinkhorn(scores, epsilon, iterations), atol=1e-12, rtol=0)
    torch.testing.assert_close(seen.sum(1), torch.ones(8, dtype=torch.float64))


def test_sinkhorn_in_the_limit_gives_each_prototype_the_same() -> None:
    shares = sinkhorn(drawn(8, 4), 1.0, 200).sum(0)
    torch.testing.assert_close(shares, torch.full((4,), 2.0, dtype=torch.float64))
    assert sinkhorn(5 * drawn(8, 4).float(), 0.3).isfinite().all()  # exp of the largest would overflow


def test_special_cases_are_the_losses_they_come_from() -> None:
    plain = value_and_grads(NTXent(0.4, "matrix"), Z1, Z2)
    assert_close(value_and_grads(HardNegative(0.4, beta=0.0, tau_plus=0.0), Z1, Z2), plain, atol=1e-12)
    distinct = torch.arange(8)
    for labels in (distinct, torch.full((8,), -1)):
        seen = value_and_grads(lambda a, b, y=labels: SupConLoss(0.4)(a, b, y), Z1, Z2)
        assert_close(seen, plain, atol=1e-12)
    assert_close(value_and_grads(DCL(0.4, sigma=1e9), Z1, Z2), value_and_grads(DCL(0.4), Z1, Z2), atol=1e-8)


def test_known_optima() -> None:
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)  # uncorrelated
    assert BarlowTwinsLoss()(signs, signs).item() == pytest.approx(0, abs=1e-8)
    assert VICRegLoss()(signs, signs).item() == 0  # spread above 1, nothing shared, nothing apart
    one_point = torch.ones(4, 3, dtype=torch.float64)
    assert VICRegLoss()(one_point, one_point).item() == pytest.approx(25 * (1 - 0.01), abs=1e-9)
    assert WMSELoss(4)(signs, 3 * signs + 1).item() == pytest.approx(0, abs=1e-12)
    quantiles = torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)[:, None]
    one = torch.ones(1, 1, dtype=torch.float64)
    assert SIGReg()(quantiles, one).item() < 1e-3 < 100 < SIGReg()(torch.zeros_like(quantiles), one).item()


def test_whitening_whitens() -> None:
    z = WMSELoss(16).whiten(drawn(32, 5))
    for part in z.chunk(2):
        torch.testing.assert_close(part.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-10, rtol=0)
        torch.testing.assert_close(part.T.cov(), torch.eye(5, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_singular_covariance_gives_nan_and_no_traceback() -> None:
    assert WMSELoss(8)(torch.zeros(8, 5), torch.zeros(8, 5)).isnan()


def test_kmeans_steps_are_the_papers() -> None:
    x = normalize(drawn(40, 4), dim=1)
    seen, _ = spherical_kmeans(x, 5, 0, torch.Generator().manual_seed(0))  # the start
    for steps in range(1, 5):
        _, seen = paper.spherical_kmeans_step(x, seen)
        centroids, assignment = spherical_kmeans(x, 5, steps, torch.Generator().manual_seed(0))
        torch.testing.assert_close(centroids, seen, atol=1e-12, rtol=0)
        assert torch.equal(assignment, assign(x, centroids))


def test_an_empty_cluster_keeps_its_centroid() -> None:
    x = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.0]]), dim=1)  # the third doubles the first
    centroids, _ = spherical_kmeans(x, 3, 3, torch.Generator().manual_seed(0))
    assert centroids.isfinite().all()
    torch.testing.assert_close(centroids.norm(dim=1), torch.ones(3))


def test_wrong_arguments_are_answered() -> None:
    with pytest.raises(UserError, match="sigma is 0"):
        DCL(sigma=0)
    with pytest.raises(UserError, match="tau_plus=1"):
        HardNegative(tau_plus=1)
    with pytest.raises(UserError, match="batch_size of 2 or more"):
        DCL()(Z1[:1], Z2[:1])
    with pytest.raises(UserError, match=r"method.loss.size=3 .* global batch of 8"):
        WMSELoss(3)(Z1, Z2)
    with pytest.raises(UserError, match="knots=1"):
        SIGReg(knots=1)
