"""The references of reference_joint in a second form: closed forms, limits, symmetries and known optima."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.losses import reference, reference_joint
from tests.losses.reference import value_and_grads


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(batch: int = 5, dim: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Partners that are alike, of all lengths: nothing may rest on unit input."""
    z = draw(batch, dim, seed=seed)
    length = draw(2, batch, 1, seed=seed + 100).exp()
    return z * length[0], (z + 0.7 * draw(batch, dim, seed=seed + 200)) * length[1]


def orthogonal(dim: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(draw(dim, dim, seed=seed)).Q


def close(seen: Tensor, expected: Tensor | float, atol: float = 1e-10) -> None:
    torch.testing.assert_close(seen, torch.as_tensor(expected, dtype=seen.dtype), atol=atol, rtol=0)


def grads_close(a: Callable[..., Tensor], b: Callable[..., Tensor], *inputs: Tensor, atol: float = 1e-10) -> None:
    """Value and gradients of both are equal."""
    for seen, expected in zip(value_and_grads(a, *inputs), value_and_grads(b, *inputs), strict=True):
        close(seen, expected, atol)


def rows_and_lengths(loss: Callable[[Tensor, Tensor], Tensor], z1: Tensor, z2: Tensor, swap: bool = True) -> None:
    """Neither the order of images, nor the lengths of vectors, nor (unless told) the order of views matters."""
    order = torch.randperm(len(z1), generator=torch.Generator().manual_seed(3))
    close(loss(z1[order], z2[order]), loss(z1, z2))
    lengths = draw(2, len(z1), 1, seed=9).exp()
    close(loss(z1 * lengths[0], z2 * lengths[1]), loss(z1, z2))
    if swap:
        close(loss(z2, z1), loss(z1, z2))


def log_matrix(z1: Tensor, z2: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """(logits of 2B by 2B, mask of self, mask of self and partner), by matrices."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    own = torch.eye(len(z), dtype=torch.bool)
    return z @ z.T / t, own, own | own.roll(len(z1), 1)


# Decoupled contrastive learning


def test_dcl_by_matrices() -> None:
    def other(z1: Tensor, z2: Tensor) -> Tensor:
        logits, _, masked = log_matrix(z1, z2, 0.3)
        positive = F.cosine_similarity(z1, z2).repeat(2) / 0.3
        return (-positive + logits.masked_fill(masked, -torch.inf).logsumexp(1)).mean()

    grads_close(lambda a, b: reference_joint.dcl(a, b, 0.3), other, *pair())
    rows_and_lengths(lambda a, b: reference_joint.dcl(a, b, 0.3), *pair())


def test_dcl_is_nt_xent_less_the_positive_in_the_denominator() -> None:
    """Of one anchor: nt_xent = softplus(-dcl), by log(1 + exp(pos)/U). All alike here by symmetry."""
    eye = torch.eye(4, dtype=torch.float64)
    dcl = reference_joint.dcl(eye, eye, 0.5)
    close(dcl, -2 + math.log(6))  # cos 1 to the partner, 0 to six others
    close(reference.nt_xent(eye, eye, 0.5), F.softplus(dcl))


def test_dclw_of_a_wide_sigma_is_dcl() -> None:
    z = pair()
    grads_close(
        lambda a, b: reference_joint.dclw(a, b, 0.3, 1e9), lambda a, b: reference_joint.dcl(a, b, 0.3), *z, atol=1e-7
    )
    rows_and_lengths(lambda a, b: reference_joint.dclw(a, b, 0.3, 0.5), *z)


@pytest.mark.parametrize("detach", [True, False])
def test_dclw_by_softmax(detach: bool) -> None:
    def other(z1: Tensor, z2: Tensor) -> Tensor:
        positive = F.cosine_similarity(z1, z2)
        weight = 2 - len(z1) * (positive / 0.5).softmax(0)
        if detach:
            weight = weight.detach()
        return reference_joint.dcl(z1, z2, 0.3) + ((1 - weight) * positive / 0.3).mean()

    grads_close(lambda a, b: reference_joint.dclw(a, b, 0.3, 0.5, detach), other, *pair())


def test_dcl_queue_in_the_batch_and_in_the_queue() -> None:
    q, k = pair()
    negatives = draw(6, 4, seed=7)
    logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / 0.3
    others = logits.masked_fill(torch.eye(5, dtype=torch.bool), -torch.inf).logsumexp(1)
    close(reference_joint.dcl_queue(q, k, None, 0.3), (others - logits.diag()).mean())
    # Of each query: info_nce = softplus(dcl).
    for i in range(5):
        one = reference_joint.dcl_queue(q[i : i + 1], k[i : i + 1], negatives, 0.3)
        close(reference.info_nce(q[i : i + 1], k[i : i + 1], negatives, 0.3), F.softplus(one))
    rows_and_lengths(lambda a, b: reference_joint.dcl_queue(a, b, negatives, 0.3), q, k, swap=False)


@pytest.mark.parametrize("own", [True, False])
def test_dclw_queue_of_a_wide_sigma_and_of_one_pair(own: bool) -> None:
    q, k = pair()
    negatives = None if own else draw(6, 4, seed=7)
    grads_close(
        lambda a, b: reference_joint.dclw_queue(a, b, negatives, 0.3, 1e9),
        lambda a, b: reference_joint.dcl_queue(a, b, negatives, 0.3),
        *(q, k),
        atol=1e-7,
    )
    positive = F.cosine_similarity(q, k)
    extra = ((len(q) * (positive / 0.5).softmax(0) - 1) * positive / 0.3).mean()
    plain = reference_joint.dcl_queue(q, k, negatives, 0.3)
    close(reference_joint.dclw_queue(q, k, negatives, 0.3, 0.5, detach_weight=True), plain + extra)
    one = draw(6, 4, seed=8)  # the weight of one pair is 1, whatever sigma
    close(
        reference_joint.dclw_queue(q[:1], k[:1], one, 0.3, 0.1),
        reference_joint.dcl_queue(q[:1], k[:1], one, 0.3),
    )


# Hard negatives


def test_hard_negative_without_either_is_nt_xent() -> None:
    grads_close(
        lambda a, b: reference_joint.hard_negative(a, b, 0.5, 0.0, 0.0),
        lambda a, b: reference.nt_xent(a, b, 0.5),
        *pair(),
    )
    rows_and_lengths(lambda a, b: reference_joint.hard_negative(a, b, 0.5, 1.0, 0.1), *pair())


def test_hard_negative_by_softmax() -> None:
    """sum(w e)/mean(w) is N times the mean of e under softmax(beta s/t)."""

    def other(z1: Tensor, z2: Tensor) -> Tensor:
        logits, _, masked = log_matrix(z1, z2, 0.5)
        negative = logits[~masked].view(len(logits), -1)
        n = negative.shape[1]
        positive = (F.cosine_similarity(z1, z2).repeat(2) / 0.5).exp()
        estimate = n * ((1.5 * negative).softmax(1) * negative.exp()).sum(1)
        estimate = ((estimate - 0.1 * n * positive) / 0.9).clamp(min=n * math.exp(-2))
        return (1 + estimate / positive).log().mean()

    grads_close(lambda a, b: reference_joint.hard_negative(a, b, 0.5, 1.5, 0.1), other, *pair())


def test_hard_negative_takes_the_hardest_in_the_limit_and_the_floor_below() -> None:
    q, k = pair()
    negatives = draw(6, 4, seed=7)
    hardest = (F.normalize(q, dim=1) @ F.normalize(negatives, dim=1).T).max(1).values / 0.5
    expected = (1 + 6 * (hardest - F.cosine_similarity(q, k) / 0.5).exp()).log().mean()
    close(reference_joint.hard_negative_queue(q, k, negatives, 0.5, 300.0, 0.0), expected, atol=1e-6)
    eye = torch.eye(4, dtype=torch.float64)  # debiased by half: 6 (1 - e^2 / 2) / 0.5 < 0, so the floor 6 e^-2
    close(reference_joint.hard_negative(eye, eye, 0.5, 1.0, 0.5), math.log(1 + 6 * math.exp(-2) / math.exp(2)))


@pytest.mark.parametrize("own", [True, False])
def test_hard_negative_queue_without_either_is_info_nce(own: bool) -> None:
    negatives = None if own else draw(6, 4, seed=7)
    grads_close(
        lambda a, b: reference_joint.hard_negative_queue(a, b, negatives, 0.5, 0.0, 0.0),
        lambda a, b: reference.info_nce(a, b, negatives, 0.5),
        *pair(),
    )


# Labels


@pytest.mark.parametrize("form", [reference_joint.sup_con, reference_joint.sup_con_in])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [-1, -1, -1, -1, -1], [-1, 3, -1, 0, 2]])
def test_sup_con_without_classmates_is_nt_xent(labels: list[int], form: Any) -> None:
    grads_close(
        lambda a, b: form(a, b, torch.tensor(labels), 0.3),
        lambda a, b: reference.nt_xent(a, b, 0.3),
        *pair(),
    )


def test_sup_con_by_matrices() -> None:
    labels = torch.tensor([0, 1, 0, -1, 1])

    def other(z1: Tensor, z2: Tensor) -> Tensor:
        logits, own, own_or_partner = log_matrix(z1, z2, 0.3)
        named = labels.repeat(2)
        same = (named[:, None] == named[None, :]) & (named != -1)[:, None]
        positive = ((same | own_or_partner) & ~own).double()
        log_probability = logits - logits.masked_fill(own, -torch.inf).logsumexp(1, keepdim=True)
        return -((positive * log_probability).sum(1) / positive.sum(1)).mean()

    loss = lambda a, b: reference_joint.sup_con(a, b, labels, 0.3)  # noqa: E731
    grads_close(loss, other, *pair())
    renamed = torch.tensor([7, 5, 7, -1, 5])
    close(reference_joint.sup_con(*pair(), renamed, 0.3), loss(*pair()))


def test_sup_con_in_by_sums_over_all_pairs() -> None:
    """solo-learn's form, the sum over positives, which differs from the mean by the logarithm of their number."""
    labels = torch.tensor([0, 1, 0, 4, 1])

    def other(z1: Tensor, z2: Tensor) -> Tensor:
        logits, own, _ = log_matrix(z1, z2, 0.3)
        named = labels.repeat(2)
        positive = ((named[:, None] == named[None, :]) & ~own).double()
        scores = logits.exp() * ~own
        return -((scores * positive).sum(1) / scores.sum(1)).log().mean() + positive.sum(1).log().mean()

    grads_close(lambda a, b: reference_joint.sup_con_in(a, b, labels, 0.3), other, *pair())


def test_sup_con_of_one_collapsed_class() -> None:
    z = torch.ones(4, 3, dtype=torch.float64)
    close(reference_joint.sup_con(z, z, torch.zeros(4, dtype=torch.long), 0.1), math.log(7))


# Teachers and queues


def test_ressl_of_one_temperature_is_at_its_optimum_where_student_is_teacher() -> None:
    z, queue = draw(5, 4), draw(6, 4, seed=1)
    logits = F.normalize(z, dim=1) @ F.normalize(queue, dim=1).T
    entropy = -((logits / 0.1).softmax(1) * (logits / 0.1).log_softmax(1)).sum(1).mean()
    value, gradient = value_and_grads(lambda a: reference_joint.ressl(a, z, queue, 0.1, 0.1), z)
    close(value, entropy)
    close(gradient, torch.zeros_like(z))
    assert reference_joint.ressl(draw(5, 4, seed=2), z, queue, 0.1, 0.1) > entropy


def test_ressl_by_matrices_and_its_stop_gradient() -> None:
    z, t = pair()
    queue = draw(6, 4, seed=1)

    def other(z: Tensor) -> Tensor:
        teacher = F.normalize(t, dim=1) @ F.normalize(queue, dim=1).T / 0.04
        student = F.normalize(z, dim=1) @ F.normalize(queue, dim=1).T / 0.1
        return F.cross_entropy(student, teacher.softmax(1))

    grads_close(lambda a: reference_joint.ressl(a, t, queue, 0.1, 0.04), other, z)
    leaves = [x.clone().requires_grad_() for x in (z, t, queue)]
    reference_joint.ressl(leaves[0], leaves[1], leaves[2], 0.1, 0.04).backward()
    assert leaves[1].grad is None
    assert leaves[2].grad is None


def test_dense_info_nce_of_a_known_correspondence_is_info_nce_of_the_places() -> None:
    q, k, negatives = draw(2, 4, 3), draw(2, 4, 3, seed=1), draw(6, 4, seed=2)
    match = torch.tensor([[2, 0, 1], [0, 0, 2]])
    feature_k = orthogonal(5)[:, :3].expand(2, 5, 3)
    feature_q = torch.stack([feature_k[b][:, match[b]] for b in range(2)]) * 3 + 0.1 * draw(2, 5, 3, seed=3)

    def other(q: Tensor, k: Tensor) -> Tensor:
        matched = torch.stack([k[b][:, match[b]] for b in range(2)])
        return reference.info_nce(
            q.transpose(1, 2).reshape(6, 4), matched.transpose(1, 2).reshape(6, 4), negatives, 0.2
        )

    loss = lambda a, b: reference_joint.dense_info_nce(a, b, feature_q, feature_k, negatives, 0.2)  # noqa: E731
    grads_close(loss, other, q, k)
    order = torch.tensor([1, 2, 0])  # of the key's places: they and their features move together
    seen = reference_joint.dense_info_nce(q, k[:, :, order], feature_q, feature_k[:, :, order], negatives, 0.2)
    close(seen, loss(q, k))


# Decorrelation


def test_barlow_twins_of_white_input_is_zero() -> None:
    z = reference_joint.whiten(draw(12, 3), 0.0) * 50  # long: the 1e-5 in BatchNorm is then nothing
    close(reference_joint.barlow_twins(z, z, 0.005, 1.0), 0.0, atol=1e-12)
    close(reference_joint.barlow_twins(z, -z, 0.005, 0.5), 0.5 * 3 * 4.0, atol=1e-6)


def test_barlow_twins_by_batch_norm() -> None:
    def other(z1: Tensor, z2: Tensor) -> Tensor:
        normed = [F.batch_norm(z, None, None, training=True) for z in (z1, z2)]
        c = normed[0].T @ normed[1] / len(z1)
        on = (c.diag() - 1).pow(2).sum()
        return 0.024 * (on + 0.005 * (c.pow(2).sum() - c.diag().pow(2).sum()))

    loss = lambda a, b: reference_joint.barlow_twins(a, b, 0.005, 0.024)  # noqa: E731
    grads_close(loss, other, *pair())
    close(loss(*pair()[::-1]), loss(*pair()))


def test_vicreg_by_torch() -> None:
    def other(z1: Tensor, z2: Tensor) -> Tensor:
        covs = [torch.cov(z.T) for z in (z1, z2)]
        hinge = [F.relu(1 - (cov.diag() + 1e-4).sqrt()).mean() for cov in covs]
        off = [(cov - cov.diag().diag()).pow(2).sum() / z1.shape[1] for cov in covs]
        return 25 * F.mse_loss(z1, z2) + 25 * (hinge[0] + hinge[1]) / 2 + (off[0] + off[1])

    loss = lambda a, b: reference_joint.vicreg(a, b, 25.0, 25.0, 1.0)  # noqa: E731
    grads_close(loss, other, *pair())
    close(loss(*pair()[::-1]), loss(*pair()))
    shift = draw(4, seed=5)
    close(loss(*(z + shift for z in pair())), loss(*pair()))


def test_vicreg_of_white_and_of_collapsed_input() -> None:
    white = reference_joint.whiten(draw(12, 3), 0.0)
    close(reference_joint.vicreg(white, white, 25.0, 25.0, 1.0), 0.0)
    collapsed = torch.ones(12, 3, dtype=torch.float64)  # both views hinge at 1 - sqrt(eps), averaged
    close(reference_joint.vicreg(collapsed, collapsed, 25.0, 25.0, 1.0), 25 * (1 - 0.01))


def test_whitened_rows_are_white_and_as_by_linalg() -> None:
    z = draw(12, 4) @ draw(4, 4, seed=1) + 3
    white = reference_joint.whiten(z, 0.0)
    close(torch.cov(white.T), torch.eye(4, dtype=torch.float64))
    close(white.mean(0), torch.zeros(4, dtype=torch.float64))
    lower = torch.linalg.cholesky(0.9 * torch.cov(z.T) + 0.1 * torch.eye(4, dtype=torch.float64))
    close(reference_joint.whiten(z, 0.1), torch.linalg.solve_triangular(lower, (z - z.mean(0)).T, upper=False).T)


def test_w_mse_by_linalg_slice_by_slice() -> None:
    def other(z1: Tensor, z2: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for a, b in zip(z1.split(6), z2.split(6), strict=True):
            whites = []
            for z in (a, b):
                lower = torch.linalg.cholesky(0.99 * torch.cov(z.T) + 0.01 * torch.eye(3, dtype=torch.float64))
                whites.append(F.normalize((z - z.mean(0)) @ torch.linalg.inv(lower).T, dim=1))
            total = total + (whites[0] - whites[1]).pow(2).sum(1).mean() / 2  # two slices
        return total

    grads_close(lambda a, b: reference_joint.w_mse(a, b, 6, 0.01), other, *pair(12, 3))


def test_w_mse_of_views_equal_but_for_lower_triangular_maps_is_zero() -> None:
    """Cholesky whitening undoes any shift and any lower triangular map with positive diagonal."""
    z = draw(8, 3)
    lower = draw(3, 3, seed=1).tril(-1) + torch.diag(torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64))
    close(reference_joint.w_mse(z, z @ lower.T + draw(3, seed=2), 8, 0.0), 0.0)
    assert reference_joint.w_mse(z, z @ orthogonal(3).T, 8, 0.0) > 0.01
    close(reference_joint.w_mse(z, -z, 8, 0.0), 4.0)


@pytest.mark.parametrize("detach", [True, False])
def test_tico_by_matrices(detach: bool) -> None:
    z, t = pair()
    old = torch.cov(draw(6, 4, seed=4).T)

    def other(z: Tensor) -> Tensor:
        u, v = F.normalize(z, dim=1), F.normalize(t, dim=1)
        batch = u.T @ u / len(u)
        new = 0.9 * old + 0.1 * (batch.detach() if detach else batch)
        return F.mse_loss(u, v) * z.shape[1] / 2 + 8 * torch.einsum("bi,ij,bj->b", u, new, u).mean()

    grads_close(lambda a: reference_joint.tico(a, t, old, 0.9, 8.0, detach)[0], other, z)
    u = F.normalize(z, dim=1)
    leaves = [x.clone().requires_grad_() for x in (z, t, old)]
    loss, new = reference_joint.tico(leaves[0], leaves[1], leaves[2], 0.9, 8.0, detach)
    loss.backward()
    close(new, 0.9 * old + 0.1 * u.T @ u / 5)
    assert not new.requires_grad
    assert leaves[1].grad is None
    assert leaves[2].grad is None


def test_tico_of_spread_and_of_collapsed_embeddings() -> None:
    zero = torch.zeros(4, 4, dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)  # spread: C = 0.1 I/4 and u C u = 0.1/4
    close(reference_joint.tico(eye, eye, zero, 0.9, 8.0)[0], 8 * 0.1 / 4)
    same = torch.ones_like(eye)  # collapsed: u C u = 0.1
    close(reference_joint.tico(same, same, zero, 0.9, 8.0)[0], 8 * 0.1)


# Gaussianity


def closed_epps_pulley(x: Tensor) -> Tensor:
    """The integral over the whole line, by the Fourier transform of the Gaussian."""
    n = len(x)
    both = torch.exp(-(x[:, None] - x[None, :]).pow(2) / 2).sum() / n**2
    single = torch.exp(-x.pow(2) / 4).sum() / n * math.sqrt(2)
    return n * math.sqrt(2 * math.pi) * (both - single + 1 / math.sqrt(3))


def test_epps_pulley_is_its_closed_form() -> None:
    x = draw(9) * 1.5 + 0.4
    grads_close(lambda a: reference_joint.epps_pulley(a, 401, 10.0), closed_epps_pulley, x)
    grads_close(lambda a: reference_joint.epps_pulley(a, 17, 5.0), closed_epps_pulley, x, atol=5e-3)


def test_epps_pulley_on_half_of_the_line_with_doubled_weights() -> None:
    x = draw(9) * 1.5 + 0.4
    t = torch.linspace(0, 3, 17, dtype=torch.float64)
    phi = (-t.pow(2) / 2).exp()
    angle = x[:, None] * t
    error = ((angle.cos().mean(0) - phi).pow(2) + angle.sin().mean(0).pow(2)) * phi
    close(reference_joint.epps_pulley(x, 33, 3.0), 2 * 9 * torch.trapezoid(error, t))
    close(reference_joint.epps_pulley(-x, 17, 5.0), reference_joint.epps_pulley(x, 17, 5.0))


def test_sig_reg_is_small_of_gaussian_rows_and_large_of_collapsed_or_long_ones() -> None:
    z = draw(2000, 3)
    directions = orthogonal(3)
    small = reference_joint.sig_reg(z, directions, 17, 5.0)
    # N times the bias: sqrt(2 pi) (1 - 1/sqrt 3) is its expectation at N(0, 1).
    assert small < 3 * math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    # Collapsed at 0 it is N times the integral of (1 - phi)^2 phi.
    collapsed = reference_joint.sig_reg(torch.zeros_like(z), directions, 17, 5.0)
    expected = 2000 * math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    close(collapsed, expected, atol=1e-2 * expected)
    assert small < 0.01 * collapsed
    assert reference_joint.sig_reg(z * 5, directions, 17, 5.0) > 0.1 * collapsed


def test_sig_reg_is_the_mean_over_directions_and_turns_with_them() -> None:
    z, directions = draw(7, 3), F.normalize(draw(3, 5, seed=1), dim=0)
    each = torch.stack([closed_epps_pulley(z @ directions[:, m]) for m in range(5)])
    close(reference_joint.sig_reg(z, directions, 401, 10.0), each.mean())
    turn = orthogonal(3, seed=2)
    seen = reference_joint.sig_reg(z @ turn.T, turn @ directions, 17, 5.0)
    close(seen, reference_joint.sig_reg(z, directions, 17, 5.0))


def test_lejepa_of_its_ends_and_by_means() -> None:
    views = [draw(7, 3, seed=s) for s in range(4)]
    directions = F.normalize(draw(3, 5, seed=9), dim=0)

    def other(*views: Tensor) -> Tensor:
        z = torch.stack(views)
        prediction = (z[:2].mean(0) - z).square().mean()
        each = torch.stack([closed_epps_pulley(v @ d) for v in views for d in directions.T])
        return 0.95 * prediction + 0.05 * each.mean()

    grads_close(lambda *v: reference_joint.lejepa(v, 2, directions, 0.05, 401, 10.0), other, *views)
    same = [views[0]] * 4
    close(reference_joint.lejepa(same, 2, directions, 0.0, 17, 5.0), 0.0)
    close(
        reference_joint.lejepa(same, 2, directions, 1.0, 17, 5.0),
        reference_joint.sig_reg(views[0], directions, 17, 5.0),
    )


# Codes and clusters


def test_sinkhorn_has_both_marginals() -> None:
    code = reference_joint.sinkhorn(draw(6, 4), 0.3, 200)
    close(code.sum(1), torch.ones(6, dtype=torch.float64))
    close(code.sum(0), torch.full((4,), 1.5, dtype=torch.float64))
    few = reference_joint.sinkhorn(draw(6, 4), 0.05, 3)
    close(few.sum(1), torch.ones(6, dtype=torch.float64))
    uniform = reference_joint.sinkhorn(torch.zeros(6, 4, dtype=torch.float64), 0.05, 3)
    close(uniform, torch.full((6, 4), 0.25, dtype=torch.float64))


def test_sinkhorn_in_the_log_domain_and_blind_to_shifts() -> None:
    scores = draw(6, 4)
    log = scores / 0.2
    for _ in range(3):
        log = log - log.logsumexp(0, keepdim=True)
        log = log - log.logsumexp(1, keepdim=True)
    close(reference_joint.sinkhorn(scores, 0.2, 3), log.exp())
    shifts = draw(1, 4, seed=1)  # of a prototype: the first step takes it out
    close(reference_joint.sinkhorn(scores + shifts, 0.2, 3), log.exp())
    assert not reference_joint.sinkhorn(scores.clone().requires_grad_(), 0.2, 3).requires_grad


def test_swav_by_torch() -> None:
    scores = [draw(5, 4, seed=s) for s in range(4)]
    codes = [draw(5, 4, seed=s + 10).softmax(1) for s in range(2)]

    def other(*scores: Tensor) -> Tensor:
        loss = torch.zeros((), dtype=torch.float64)
        for g, v in [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]:
            loss = loss + F.cross_entropy(scores[v] / 0.1, codes[g]) / 6
        return loss

    grads_close(lambda *s: reference_joint.swav(s, codes, 0.1), other, *scores)


def test_swav_of_hard_codes_and_of_uniform_scores() -> None:
    codes = [torch.eye(4, dtype=torch.float64)] * 2
    close(reference_joint.swav([torch.zeros(4, 4, dtype=torch.float64)] * 3, codes, 0.1), math.log(4))
    close(reference_joint.swav([torch.eye(4, dtype=torch.float64) * 10] * 3, codes, 0.1), 0.0)
    leaves = [code.clone().requires_grad_() for code in codes]
    scores = draw(4, 4).requires_grad_()
    reference_joint.swav([scores, scores], leaves, 0.1).backward()
    assert leaves[0].grad is None
    assert leaves[1].grad is None


def test_spherical_kmeans_step_by_one_hot_and_never_worse() -> None:
    x, centroids = draw(20, 3) * draw(20, 1, seed=1).exp(), F.normalize(draw(4, 3, seed=2), dim=1)
    unit = F.normalize(x, dim=1)
    before = (unit @ centroids.T).max(1).values.sum()
    assignments, new = reference_joint.spherical_kmeans_step(x, centroids)
    assert torch.equal(assignments, (unit @ centroids.T).argmax(1))
    close(new, F.normalize(F.one_hot(assignments, 4).double().T @ unit, dim=1))
    assert (unit * new[assignments]).sum() >= before


def test_spherical_kmeans_step_stays_at_its_fixed_point_and_keeps_an_empty_cluster() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    x = torch.cat([eye[:3], eye[:3] * 5])
    assignments, new = reference_joint.spherical_kmeans_step(x, eye)
    assert assignments.tolist() == [0, 1, 2, 0, 1, 2]
    close(new, eye)


def test_nnclr_of_the_embeddings_as_support_is_the_softmax_over_rows() -> None:
    """Each its own nearest neighbour: info_nce over the predictions, both ways."""
    (z1, z2), (p1, p2) = pair(), pair(seed=5)
    support = torch.cat([z1 * 3, z2 / 3])

    def other(p1: Tensor, p2: Tensor) -> Tensor:
        return (reference.info_nce(z1, p2, None, 0.1) + reference.info_nce(z2, p1, None, 0.1)) / 2

    grads_close(lambda a, b: reference_joint.nnclr(z1, z2, a, b, support, 0.1), other, p1, p2)


def test_nnclr_by_matrices_and_its_stop_gradients() -> None:
    (z1, z2), (p1, p2) = pair(), pair(seed=5)
    support = draw(7, 4, seed=8)
    unit = F.normalize(support, dim=1)
    expected = torch.zeros((), dtype=torch.float64)
    for z, p in ((z1, p2), (z2, p1)):
        nearest = unit[(F.normalize(z, dim=1) @ unit.T).argmax(1)]
        expected = expected + F.cross_entropy(nearest @ F.normalize(p, dim=1).T / 0.1, torch.arange(5)) / 2
    close(reference_joint.nnclr(z1, z2, p1, p2, support, 0.1), expected)
    close(reference_joint.nnclr(z2, z1, p2, p1, support.flip(0), 0.1), expected)
    leaves = [x.clone().requires_grad_() for x in (z1, z2, p1, p2, support)]
    reference_joint.nnclr(leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], 0.1).backward()
    assert [leaf.grad is None for leaf in leaves] == [True, True, False, False, True]
