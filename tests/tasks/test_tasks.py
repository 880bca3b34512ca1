"""Each task's loss, residual, metrics and words, against loops; and what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Task, computed
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.multilabel import MultiLabel
from ssl_lightning.tasks.regress import Regress
from tests.tasks import naive

N = 11


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes() -> tuple[Task, Tensor, Callable[..., Tensor]]:
    return Classify.of(4), torch.arange(N) * 7 % 4, naive.cross_entropy


def labels() -> tuple[Task, Tensor, Callable[..., Tensor]]:
    targets = (drawn(N, 4, seed=1) > 0.5).float()
    return MultiLabel().prepare(list("abcd"), targets), targets, naive.binary


def numbers() -> tuple[Task, Tensor, Callable[..., Tensor]]:
    targets = torch.stack([1990 + 10 * drawn(N, seed=2), 0.001 * drawn(N, seed=3)], 1).float()
    task = Regress().prepare(["year", "size"], targets)
    mean = targets.double().mean(0).float()
    std = targets.double().std(0, correction=0).float()
    lists = mean.double().tolist(), std.double().tolist()
    return task, targets, lambda outputs, y, smoothing=0.0: naive.squared(outputs, y.double(), *lists)


@pytest.mark.parametrize("given", [classes, labels, numbers])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_are_those_of_the_loops(given: Any, smoothing: float) -> None:
    task, targets, loop = given()
    if given is numbers and smoothing:
        with pytest.raises(UserError, match=r"stage\.label_smoothing=0"):
            task.loss(drawn(N, 2), targets, smoothing)
        return
    outputs = drawn(N, len(task.names)).requires_grad_()
    values = [task.loss(outputs, targets, smoothing), loop(outputs, targets, smoothing)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=0)
    found, wanted = (torch.autograd.grad(value, outputs)[0] for value in values)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(task.loss(outputs, targets, smoothing, "sum"), values[1] * N, rtol=1e-12, atol=0)


@pytest.mark.parametrize("given", [classes, labels, numbers])
def test_the_residual_is_the_gradient_of_each_items_loss_for_each_head(given: Any) -> None:
    task, targets, loop = given()
    outputs = drawn(N, 3, len(task.names))
    found = task.residual(outputs.clone(), targets)
    for g in range(3):
        one = outputs[:, g].clone().requires_grad_()
        (wanted,) = torch.autograd.grad(loop(one, targets) * N, one)
        torch.testing.assert_close(found[:, g], wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(Task.residual(task, outputs, targets), found, rtol=1e-9, atol=1e-12)


def test_classes_are_measured_exactly() -> None:
    task = Classify.of(7)
    outputs, targets = drawn(30, 7), torch.arange(30) % 7
    found = task.measure(outputs, targets)
    top = [sorted(range(7), key=lambda c, i=i: -float(outputs[i, c])) for i in range(30)]
    assert found["top1"] == sum(top[i][0] == int(targets[i]) for i in range(30)) / 30
    assert found["top5"] == sum(int(targets[i]) in top[i][:5] for i in range(30)) / 30
    assert float(MulticlassAccuracy(7, average="micro")(outputs, targets)) == pytest.approx(found["top1"], abs=1e-7)
    assert list(Classify.of(5).measure(outputs[:, :5], targets % 5)) == ["top1"]


def test_numbers_are_measured_in_their_own_units_whatever_their_size() -> None:
    task, targets, _ = numbers()
    found = task.measure(drawn(N, 2, seed=5), targets)
    own = task.numbers(drawn(N, 2, seed=5))  # type: ignore[operator]
    assert list(found) == ["r2", "mae", "rmse"]
    for name in found:
        assert found[name] == pytest.approx(getattr(naive, name)(own, targets.double()), rel=1e-6)
    constant = task.outputs_of(targets.mean(0, keepdim=True)).expand(N, 2)
    assert task.measure(constant, targets)["r2"] == pytest.approx(0, abs=1e-3)
    one = task.measure(drawn(1, 2), targets[:1])
    assert one["r2"] != one["r2"]  # NaN: one item has no variance


def test_several_labels_are_measured_over_those_that_are_there() -> None:
    task, targets, _ = labels()
    targets[:, 2] = 0  # no item has this one
    outputs = drawn(N, 4, seed=6, scale=0.4).abs()  # logits in 0..1 in part: torchmetrics would take them as they are
    outputs[::2] *= -1
    found = task.measure(outputs, targets)
    assert found["map"] == pytest.approx(naive.average_precision(outputs, targets), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(naive.macro_f1(outputs, targets), abs=1e-6)


@pytest.mark.parametrize("given", [classes, labels, numbers])
def test_batches_are_measured_as_the_whole_and_their_order_is_nothing(given: Any) -> None:
    task, targets, _ = given()
    outputs, metrics = drawn(N, len(task.names), seed=7), task.metrics()
    for part in torch.arange(N).flip(0).split(4):
        metrics.update(*task.measurable(outputs[part], targets[part]))
    assert computed(metrics) == pytest.approx(task.measure(outputs, targets), rel=1e-6)


def test_a_batch_of_logits_between_0_and_1_is_no_batch_of_probabilities() -> None:
    task, targets, _ = labels()
    outputs = drawn(N, 4, seed=8, scale=0.1).abs().clamp(0.01, 0.4)
    outputs[6:] *= -1
    metrics = task.metrics()
    for part in torch.arange(N).split(6):
        metrics.update(*task.measurable(outputs[part], targets[part]))
    assert computed(metrics)["macro_f1"] == pytest.approx(naive.macro_f1(outputs, targets), abs=1e-6)
    assert computed(metrics)["map"] == pytest.approx(naive.average_precision(outputs, targets), abs=1e-6)


def test_the_statistics_are_kept_with_the_network() -> None:
    task, targets, _ = numbers()
    said = task.described()
    again = Regress().restore(said)
    again.load_state_dict(task.state_dict())
    assert torch.equal(again.loss(drawn(N, 2), targets), task.loss(drawn(N, 2), targets))
    assert again.described() == said
    assert said["node"] == {"_target_": "ssl_lightning.tasks.regress.Regress"}
    assert said["names"] == ["year", "size"]
    assert said["statistics"]["mean"] == pytest.approx(targets.mean(0).tolist())


def test_predictions_are_told_with_names() -> None:
    said = Classify.of(["cat", "dog"]).predict(torch.tensor([[0.0, 0.0], [1.0, 3.0]]))
    assert [row["class"] for row in said] == ["cat", "dog"]
    assert said[1]["probability"] == pytest.approx(1 / (1 + 2.718281828**-2))
    assert MultiLabel().prepare(["old"], torch.ones(1, 1)).predict(torch.zeros(1, 1)) == [{"old": 0.5}]
    task = Regress().prepare(["age"], torch.tensor([[10.0], [30.0]]))
    assert task.predict(torch.tensor([[1.0]])) == [{"age": 30.0}]


def test_the_best_constant_says_the_mean() -> None:
    task, targets, _ = labels()
    means = targets.mean(0, keepdim=True)
    torch.testing.assert_close(task.outputs_of(means).sigmoid(), means.clamp(1e-6, 1 - 1e-6))
    task, targets, _ = numbers()
    assert task.outputs_of(targets.mean(0, keepdim=True)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("task", "targets", "words"),
    [
        (Classify.of(2), torch.tensor([0, 2]), r"labels must lie in 0..1; found 0 to 2"),
        (MultiLabel().prepare("ab", torch.ones(1, 2)), torch.tensor([[0.0, 0.5]]), "0 or 1 of 2 labels for each test"),
        (MultiLabel().prepare("ab", torch.ones(1, 2)), torch.zeros(3, 2), "no test image has any of the labels"),
        (Regress().prepare("a", torch.ones(2, 1)), torch.tensor([[torch.inf]]), "1 finite number for each test image"),
    ],
)
def test_other_labels_are_refused(task: Task, targets: Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        task.check(targets, "test", "image")


def test_a_constant_target_stays_finite() -> None:
    task = Regress().prepare(["a"], torch.full((4, 1), 7.0))
    assert task.loss(torch.zeros(2, 1), torch.full((2, 1), 7.0)) == 0


def test_training_numbers_that_are_all_the_same_are_refused() -> None:
    targets = torch.tensor([[7.1, 1.0], [7.1, 2.0], [7.1, 4.0]])
    task = Regress().prepare(["age", "height"], targets)
    with pytest.raises(UserError, match=r"same number.* other columns than 'age' with data\.label_column"):
        task.check(targets, "training", "image")
    task.check(targets, "test", "image")  # few items may be alike
    Regress().prepare(["height"], targets[:, 1:]).check(targets[:, 1:], "training", "image")


def test_the_noise_of_r2_is_two_deviations_of_many_draws() -> None:
    x, y = drawn(2, 4000, 100, scale=1.0)
    y = x + y  # half of the variance is explained
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    found = (x * y).sum(1).square() / (x.square().sum(1) * y.square().sum(1))
    assert Regress().noise(0.5, 100) == pytest.approx(2 * float(found.std()), rel=0.05)
