"""The losses of masked images and self-distillation against the papers' equations, in value and gradient."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.color import ColorLoss
from ssl_lightning.losses.cpc import CPCLoss
from ssl_lightning.losses.dino import DINOLoss
from ssl_lightning.losses.ibot import MaskedPatchLoss
from ssl_lightning.losses.koleo import KoLeo
from ssl_lightning.losses.masked_pixels import MaskedPixelLoss
from ssl_lightning.losses.msn import MSNLoss
from ssl_lightning.parts.center import Center, SinkhornCenter
from tests.losses import reference_masked as paper
from tests.losses.reference import assert_close, value_and_grads
from tests.losses.test_joint_losses import drawn

PATCHES, PREDICTION = drawn(3, 5, 12), drawn(3, 5, 12, seed=1)
MASK = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
VIEWS = [drawn(4, 7, seed=seed) for seed in range(5)]
TARGETS = [drawn(4, 7, seed=seed).softmax(1) for seed in (10, 11)]


@pytest.mark.parametrize("norm_target", [False, True])
@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_masked_pixels_equal_the_paper(norm_target: bool, error) -> None:
    ours = value_and_grads(lambda p: MaskedPixelLoss(norm_target, error)(p, PATCHES, MASK), PREDICTION)
    theirs = partial(paper.masked_pixels, patches=PATCHES, mask=MASK, norm_target=norm_target, error=error)
    assert_close(ours, value_and_grads(theirs, PREDICTION), atol=1e-10)


def test_only_hidden_patches_are_scored() -> None:
    prediction = PREDICTION.clone().requires_grad_()
    MaskedPixelLoss()(prediction, PATCHES, MASK).backward()
    assert not prediction.grad[~MASK].any()
    assert prediction.grad[MASK].any(-1).all()


def test_a_target_of_its_own_mean_and_deviation_does_not_see_light_and_contrast() -> None:
    loss = MaskedPixelLoss()
    bright = 3 * PATCHES + 5
    torch.testing.assert_close(loss(PREDICTION, bright, MASK), loss(PREDICTION, PATCHES, MASK), atol=1e-5, rtol=0)


def dino_of(*views: Tensor) -> Tensor:
    return DINOLoss(0.1)(views, [t.to(views[0].dtype) for t in TARGETS])


def test_dino_equals_the_paper() -> None:
    theirs = value_and_grads(lambda *views: paper.dino(list(views), TARGETS, 0.1), *VIEWS)
    assert_close(value_and_grads(dino_of, *VIEWS), theirs, atol=1e-10)


def test_dino_without_local_views_is_symmetric() -> None:
    a, b = VIEWS[:2]
    there, back = DINOLoss(0.2)([a, b], TARGETS), DINOLoss(0.2)([b, a], TARGETS[::-1])
    torch.testing.assert_close(there, back, atol=1e-12, rtol=0)


def test_dino_is_least_where_the_student_says_what_the_teacher_says() -> None:
    """Its least value is the entropy of the targets (Gibbs)."""
    answer = TARGETS[0]
    entropy = -(answer * answer.log()).sum(1).mean()
    agreed = DINOLoss(0.1)([0.1 * answer.log(), 0.1 * answer.log()], [answer, answer])
    torch.testing.assert_close(agreed, entropy, atol=1e-12, rtol=0)
    assert DINOLoss(0.1)(VIEWS[:2], [answer, answer]) > entropy


def test_center_and_sharpening_equal_the_paper() -> None:
    center, expected = Center(7).double(), torch.zeros(7, dtype=torch.float64)
    for seed in range(3):
        scores = drawn(4, 7, seed=seed)
        found = center.sharpen(scores, 0.04)
        torch.testing.assert_close(found, paper.dino_target(scores, expected, 0.04), atol=1e-12, rtol=0)
        center.update(scores)
        expected = paper.dino_center(expected, scores, 0.9)
        torch.testing.assert_close(center.value, expected, atol=1e-12, rtol=0)


def test_a_centre_counts_rows_and_not_ranks_and_stays_without_any() -> None:
    center = Center(7).double()
    center.update(drawn(4, 7))
    before = center.value.clone()
    center.update(drawn(4, 7)[:0])
    assert torch.equal(center.value, before)


def test_sinkhorns_centre_uses_each_prototype_equally_often() -> None:
    answers = SinkhornCenter(7, 500).sharpen(drawn(28, 7), 0.5)
    torch.testing.assert_close(answers.sum(1), torch.ones(28, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(answers.sum(0), torch.full((7,), 4.0, dtype=torch.float64), atol=1e-6, rtol=0)
    assert SinkhornCenter(7).sharpen(drawn(4, 7)[:0], 0.5).shape == (0, 7)


def test_masked_patches_equal_the_paper() -> None:
    """The second image has no hidden patch, and counts as zero."""
    mask = MASK.clone()
    mask[1] = False
    targets = drawn(3, 5, 7, seed=5).softmax(2)
    ours = value_and_grads(lambda s: MaskedPatchLoss(0.1)(s[mask], targets[mask], mask), drawn(3, 5, 7))
    theirs = partial(paper.ibot_patches, target=targets, mask=mask, t=0.1, all_images=True)
    assert_close(ours, value_and_grads(theirs, drawn(3, 5, 7)), atol=1e-10)


def test_masked_patches_without_any_are_zero() -> None:
    nothing = drawn(3, 5, 7)[torch.zeros(3, 5, dtype=torch.bool)].requires_grad_()
    loss = MaskedPatchLoss()(nothing, nothing.detach(), torch.zeros(3, 5, dtype=torch.bool))
    loss.backward()
    assert loss == 0


def test_koleo_equals_the_paper() -> None:
    z = drawn(8, 5)
    assert_close(value_and_grads(KoLeo(1e-15), z), value_and_grads(paper.koleo, z), atol=1e-10)


def test_koleo_of_equal_vectors_is_finite() -> None:
    z = drawn(1, 5).expand(4, 5).clone().requires_grad_()
    loss = KoLeo()(z)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_msn_equals_the_paper() -> None:
    """But for the constant log K."""
    anchors, target, prototypes = drawn(3, 4, 5), drawn(4, 5, seed=1), drawn(6, 5, seed=2)
    ours = value_and_grads(lambda a, q: MSNLoss(weight=0.7)(a, target, q), anchors, prototypes)
    theirs = value_and_grads(
        lambda a, q: paper.msn(list(a), target, q, 0.1, 0.025, 0.7) + 0.7 * math.log(6), anchors, prototypes
    )
    assert_close(ours, theirs, atol=1e-10)


def test_msns_targets_may_use_each_prototype_equally_often() -> None:
    anchors, target, prototypes = drawn(3, 4, 5), drawn(4, 5, seed=1), drawn(6, 5, seed=2)
    ours = value_and_grads(lambda a, q: MSNLoss(weight=0.7, iterations=3)(a, target, q), anchors, prototypes)
    theirs = value_and_grads(
        lambda a, q: paper.msn(list(a), target, q, 0.1, 0.025, 0.7, iterations=3) + 0.7 * math.log(6),
        anchors,
        prototypes,
    )
    assert_close(ours, theirs, atol=1e-10)


def test_pmsn_equals_its_divergence_from_a_power_law() -> None:
    anchors, target, prototypes = drawn(3, 4, 5), drawn(4, 5, seed=1), drawn(6, 5, seed=2)
    ours = value_and_grads(lambda a, q: MSNLoss(weight=0.7, prior_power=0.25)(a, target, q), anchors, prototypes)
    theirs = value_and_grads(
        lambda a, q: paper.msn(list(a), target, q, 0.1, 0.025, 0.7, prior_power=0.25), anchors, prototypes
    )
    assert_close(ours, theirs, atol=1e-10)


def test_pmsns_prior_falls_as_a_power() -> None:
    """Where the mean assignment is the prior itself, the second term is zero, and larger anywhere else."""
    prior = torch.arange(1, 4, dtype=torch.float64) ** -0.5
    prior = prior / prior.sum()
    prototypes = torch.eye(3, dtype=torch.float64)
    loss = MSNLoss(temperature=0.1, weight=1.0, prior_power=0.5)
    # all anchors alike: their scores are the logarithms of the prior, up to a constant that makes them unit vectors
    scores = 0.1 * prior.log()
    total, square = scores.sum(), scores.square().sum()
    anchors = (scores + ((total.square() - 3 * (square - 1)).sqrt() - total) / 3).expand(1, 4, 3)
    targets = anchors[0]
    plain = MSNLoss(temperature=0.1, weight=0.0)(anchors, targets, prototypes)
    torch.testing.assert_close(loss(anchors, targets, prototypes), plain, atol=1e-12, rtol=0)
    even = MSNLoss(temperature=0.1, weight=1.0)(anchors, targets, prototypes)
    assert even > plain + 0.01


def test_colours_equal_the_paper() -> None:
    codes, weights = drawn(4, 7, seed=3).softmax(1), drawn(4, seed=4).exp()

    def naive(scores: Tensor) -> Tensor:
        terms = []
        for row, code, weight in zip(scores, codes, weights, strict=True):
            logs = [s - sum(other.exp() for other in row).log() for s in row]
            terms.append(-weight * sum(c * log for c, log in zip(code, logs, strict=True)))
        return torch.stack(terms).mean()

    ours = value_and_grads(lambda scores: ColorLoss()(scores, codes, weights), drawn(4, 7))
    assert_close(ours, value_and_grads(naive, drawn(4, 7)), atol=1e-10)


def test_cpc_equals_the_paper() -> None:
    predictions, targets = drawn(6, 5), drawn(6, 5, seed=1)
    ours = value_and_grads(CPCLoss(), predictions, targets)
    assert_close(ours, value_and_grads(paper.cpc_info_nce, predictions, targets), atol=1e-10)


def test_in_autocast_dino_computes_in_single_precision() -> None:
    single = [view.float() for view in VIEWS]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dino_of(*single)
    torch.testing.assert_close(found, dino_of(*single), rtol=0, atol=0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="temperature is 0"):
        DINOLoss(0)
    with pytest.raises(UserError, match="temperature is 0"):
        MaskedPatchLoss(0)
    with pytest.raises(UserError, match="temperatures are 0"):
        MSNLoss(0)
    with pytest.raises(UserError, match="iterations is -1"):
        MSNLoss(iterations=-1)
    with pytest.raises(UserError, match="eps is 0"):
        KoLeo(0)
    with pytest.raises(UserError, match="iterations=0"):
        SinkhornCenter(3, 0)
    with pytest.raises(UserError, match="momentum is 2"):
        Center(3, 2)
