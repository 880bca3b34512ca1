"""Mixup and CutMix against loops over items and pixels in float64; and what they are drawn from."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from ssl_lightning.core.batch import Batch, Padded
from ssl_lightning.core.counter import METHOD_STREAM, uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import hashed_seed
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import Constant
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.finetuner import Finetuner
from ssl_lightning.tasks.mixing import draw, mixed, partners
from ssl_lightning.tasks.regress import Regress
from ssl_lightning.tasks.transcribe import Transcribe
from tests.gloo import run_two

RECIPE = OptimizerRecipe(partial(SGD, momentum=0.9), base_lr=0.4, weight_decay=0.05, scheduler=Constant())
SEED, SIDE = 5, 6


class Flat(nn.Module):
    """Pixels as features, through one weight matrix."""

    def __init__(self, pixels: int = 3 * SIDE * SIDE) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, 5)
        self.out_dim = 5

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(3)
    views = torch.randn(count, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return Batch([views], torch.arange(count) % 3, torch.arange(count) * 7 % 40)


def made(**options: Any) -> Finetuner:
    torch.manual_seed(1)
    module = Finetuner(Flat(), Classify.of(3), RECIPE, seed=SEED, **options).double()
    nn.init.normal_(module.head.weight)
    return module


def naive_partner(i: int, indices: list[int], epoch: int) -> int:
    """The row whose key is the next larger one; after the largest the smallest."""
    keys = [float(uniform(SEED, epoch, torch.tensor([index]), METHOD_STREAM, 1)) for index in indices]
    larger = [j for j in range(len(keys)) if keys[j] > keys[i]]
    return min(larger or range(len(keys)), key=lambda j: keys[j])


def naive_mix(kind: str, alpha: float, number: int, epoch: int) -> tuple[float, Any]:
    """(share, whether a pixel comes from the other item), after the CutMix paper's listing."""
    generator = np.random.default_rng(hashed_seed("mix", SEED, epoch, number))
    share = generator.beta(alpha, alpha)
    if kind == "mixup":
        return share, None
    spans = []
    for _ in range(2):
        center, cut = generator.integers(SIDE), int(SIDE * math.sqrt(1 - share))
        spans.append((max(center - cut // 2, 0), min(center + cut // 2, SIDE)))
    (top, bottom), (left, right) = spans
    area = (bottom - top) * (right - left)
    return 1 - area / SIDE**2, lambda y, x: top <= y < bottom and left <= x < right


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("number", range(4))
def test_the_loss_is_that_of_mixed_items_and_targets(kind: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch, given, alpha = 1, batch(), 0.7
    monkeypatch.setattr(Finetuner, "current_epoch", epoch)
    module = made(**{kind: alpha}, label_smoothing=0.1)
    loss = module.training_step(given, number)
    found = torch.autograd.grad(loss, list(module.parameters()))

    share, inside = naive_mix(kind, alpha, number, epoch)
    one_hot, total = F.one_hot(given.labels, 3).double(), torch.zeros((), dtype=torch.float64)
    for i in range(8):
        j = naive_partner(i, given.indices.tolist(), epoch)
        x, other = given.views[0][i].clone(), given.views[0][j]
        for c in range(3):
            for v in range(SIDE):
                for u in range(SIDE):
                    mine = share * x[c, v, u] + (1 - share) * other[c, v, u]
                    x[c, v, u] = mine if inside is None else other[c, v, u] if inside(v, u) else x[c, v, u]
        target = 0.9 * (share * one_hot[i] + (1 - share) * one_hot[j]) + 0.1 / 3
        total = total - (target * module(x[None])[0].log_softmax(dim=0)).sum() / 8
    wanted = torch.autograd.grad(total, list(module.parameters()))
    torch.testing.assert_close(loss, total, rtol=1e-12, atol=0)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_with_both_each_batch_has_one_of_them() -> None:
    drawn = [draw(0, 0, number, (SIDE, SIDE), 0.5, 1.0) for number in range(400)]
    cut = [mix for mix in drawn if mix.box is not None]
    assert 150 < len(cut) < 250
    assert all(0 <= mix.share <= 1 for mix in drawn)
    assert len({mix.share for mix in drawn if mix.box is None}) == 400 - len(cut)


def test_shares_have_the_distribution_that_was_asked_for() -> None:
    shares = torch.tensor([draw(2, 3, number, (), 0.4, 0.0).share for number in range(4000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)  # of Beta(a, a)


def test_partners_are_a_cycle_through_all_and_differ_from_epoch_to_epoch() -> None:
    indices = torch.arange(100)
    rows = [partners(0, epoch, indices) for epoch in range(2)]
    for found in rows:
        place, seen = 0, set[int]()
        while place not in seen:
            seen.add(place)
            place = int(found[place])
        assert len(seen) == 100
    assert not torch.equal(*rows)
    shuffled = torch.randperm(100)
    assert torch.equal(indices[shuffled][partners(0, 0, indices[shuffled])], indices[rows[0]][shuffled])


def test_nothing_is_drawn_from_the_global_stream() -> None:
    module, given = made(mixup=0.5, cutmix=0.5), batch()
    before = torch.random.get_rng_state()
    losses = [float(module.training_step(given, number).detach()) for number in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert losses[0] == losses[1] != losses[2]


def test_of_a_wave_a_stretch_is_pasted() -> None:
    x = torch.arange(40.0).view(4, 1, 10)
    found, _, share = mixed(x, torch.arange(4), torch.arange(4), 0, 0, 3, 0.0, 1.0)
    other = found.div(10, rounding_mode="floor").long()[:, 0]  # whose each place is
    mine = other == torch.arange(4)[:, None]
    assert share == pytest.approx(float(mine.double().mean()))
    assert 0 < share < 1
    assert torch.equal(mine, mine[:1].expand(4, 10))  # the same stretch in all


def test_numbers_are_mixed_as_classes_are() -> None:
    targets = torch.arange(8.0)[:, None]
    task = Regress().prepare(["age"], targets)
    module = Finetuner(Flat(), task, RECIPE, mixup=1.0, seed=SEED).double()
    given = batch()._replace(labels=targets)
    x, others, share = mixed(given.views[0], targets, given.indices, SEED, 0, 0, 1.0, 0.0)
    outputs = module(x)
    wanted = share * task.loss(outputs, targets) + (1 - share) * task.loss(outputs, others)
    torch.testing.assert_close(module.training_step(given, 0), wanted)


@pytest.mark.parametrize(
    ("x", "cutmix", "said"),
    [
        (Padded(torch.zeros(2, 4), torch.tensor([4, 3])), 0.0, "stage.mixup mixes items of one size"),
        (torch.zeros(2, 4), 1.0, "stage.cutmix pastes a part of an item"),
    ],
)
def test_items_that_cannot_be_mixed(x: Any, cutmix: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        mixed(x, torch.arange(2), torch.arange(2), 0, 0, 0, 0.0 if cutmix else 1.0, cutmix)


def test_texts_are_not_mixed() -> None:
    with pytest.raises(UserError, match="this task has texts"):
        Finetuner(Flat(), Transcribe().prepare(("a",), torch.zeros(1, dtype=torch.long)), RECIPE, mixup=0.1)


def on_ranks(rank: int, world_size: int) -> dict[str, Tensor]:
    """Loss and gradient of a global batch of 8, averaged over ranks, at epoch 1; rank r has the rows r::W."""
    Finetuner.current_epoch = 1  # type: ignore[method-assign,assignment]
    found = {}
    for name, options in {"mixup": {"mixup": 0.7}, "cutmix": {"cutmix": 0.9}, "weighted": {"mixup": 0.3}}.items():
        weights = torch.tensor([0.2, 1.0, 3.0]) if name == "weighted" else None
        module, given = made(**options, class_weights=weights), batch()
        mine = [t[rank::world_size] for t in (given.views[0], given.labels, given.indices)]
        loss = module.training_step(Batch([mine[0]], *mine[1:]), 2)
        values = [loss.detach(), *torch.autograd.grad(loss, list(module.parameters()))]
        for value in values if world_size > 1 else []:
            torch.distributed.all_reduce(value)
            value /= world_size
        found |= {f"{name} {i}": value for i, value in enumerate(values)}
    return found


@pytest.mark.long
def test_two_processes_mix_as_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Finetuner, "current_epoch", 1)
    one = on_ranks(0, 1)
    for seen in run_two(on_ranks):
        for name, value in one.items():
            torch.testing.assert_close(seen[name], value, rtol=1e-10, atol=1e-12)
