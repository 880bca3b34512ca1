"""The losses of masked images and self-distillation against the papers' equations, in value and gradient."""

from functools import partial

import pytest
import torch
from torch import Tensor

from ssl_lightning.errors import UserError
from ssl_lightning.losses.dino import DINOLoss
from ssl_lightning.losses.masked_pixels import MaskedPixelLoss
from ssl_lightning.models.center import Center
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


def test_in_autocast_dino_computes_in_single_precision() -> None:
    single = [view.float() for view in VIEWS]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dino_of(*single)
    torch.testing.assert_close(found, dino_of(*single), rtol=0, atol=0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="temperature is 0"):
        DINOLoss(0)
    with pytest.raises(UserError, match="momentum is 2"):
        Center(3, 2)
