"""The probe at its optimum against scikit-learn's logistic and ridge regression."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_lightning.evaluation import lbfgs
from ssl_lightning.evaluation.lbfgs import converged, fit_probes
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.multilabel import MultiLabel
from ssl_lightning.tasks.regress import Regress
from tests.evaluation.test_linear_probe import blobs

sklearn_linear = pytest.importorskip("sklearn.linear_model")
DECAYS = [1e-3, 0.3, 1e-2]


def test_classes_are_scikit_learn_s_logistic_regression() -> None:
    x, labels = blobs(150, 4, 6)
    weights, biases, slopes = fit_probes(x, labels, Classify.of(4), DECAYS)
    for decay, weight, bias, slope in zip(DECAYS, weights, biases, slopes, strict=True):
        theirs = sklearn_linear.LogisticRegression(C=1 / (len(x) * decay), tol=1e-12, max_iter=10_000)
        theirs.fit(x.numpy(), labels.numpy())
        torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_), rtol=1e-5, atol=1e-6)
        wanted = torch.from_numpy(theirs.intercept_)  # a shift of all biases changes nothing
        torch.testing.assert_close(bias - bias.mean(), wanted - wanted.mean(), rtol=1e-5, atol=1e-6)
        assert slope < 1e-8
        assert converged(slope, x.dtype)
        leaf = weight.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(x @ leaf.T + bias, labels) + decay / 2 * leaf.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert float(leaf.grad.abs().max()) < 1e-8, "the optimum of the loss as it is written"


def test_several_labels_are_one_logistic_regression_each() -> None:
    x, classes = blobs(120, 3, 5)
    targets = torch.stack([classes == 0, (classes == 1) | (x[:, 0] > 1)], 1).double()
    task = MultiLabel().prepare(["a", "b"], targets)
    decay = 0.02
    (weight,), (bias,), _ = fit_probes(x, targets, task, [decay])
    for label in range(2):  # the mean over labels halves each one's loss
        theirs = sklearn_linear.LogisticRegression(C=1 / (2 * len(x) * decay), tol=1e-12, max_iter=10_000)
        theirs.fit(x.numpy(), targets[:, label].numpy())
        torch.testing.assert_close(weight[label], torch.from_numpy(theirs.coef_[0]), rtol=1e-5, atol=1e-6)
        assert float(bias[label]) == pytest.approx(theirs.intercept_[0], rel=1e-5, abs=1e-6)


def test_numbers_are_a_ridge_regression() -> None:
    x, _ = blobs(80, 3, 5)
    targets = (x[:, :1] * 2 - x[:, 1:2] + 0.3 * torch.randn(80, 1, dtype=torch.float64)).float()
    task = Regress().prepare(["y"], targets).double()
    (weight,), (bias,), slopes = fit_probes(x, targets.double(), task, [0.05])
    assert slopes[0] < 1e-8
    eye = torch.eye(5, dtype=torch.float64)
    for step in (1e-4, -1e-4):  # no small move makes it better
        best = objective(x, targets, task, weight, bias, 0.05)
        for i in range(5):
            assert objective(x, targets, task, weight + step * eye[i], bias, 0.05) > best


def objective(x: Tensor, y: Tensor, task: Regress, weight: Tensor, bias: Tensor, decay: float) -> float:
    return float(task.loss(x @ weight.T + bias, y.double()) + decay / 2 * weight.square().sum())


def test_accuracy_of_the_grid_is_theirs_within_half_a_point() -> None:
    (x, labels), (test_x, test_labels) = blobs(600, 5, 8), blobs(1000, 5, 8, seed=1)
    x, test_x = x.float(), test_x.float()
    settings = ProbeSettings(optimizer="lbfgs", weight_decays=(1e-4, 1e-2, 1.0))
    found = probe_grid(x, labels, test_x, test_labels, Classify.of(5), settings)
    assert found.lr == 0
    assert len(found.table) == 3
    mean, std = x.mean(0), x.std(0)
    theirs = sklearn_linear.LogisticRegression(C=1 / (600 * found.weight_decay), max_iter=10_000)
    theirs.fit(((x - mean) / std).numpy(), labels.numpy())
    predicted = theirs.predict(((test_x - mean) / std).numpy())
    assert found.top1 == pytest.approx(float(np.mean(predicted == test_labels.numpy())), abs=0.005)
    assert "L-BFGS to the optimum; weight decay (0.0001, 0.01, 1) chosen on" in settings.describe()
    assert "lr" not in found.chosen(settings)


def test_what_has_not_converged_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = blobs(90, 3, 5)
    _, _, slopes = fit_probes(x, labels, Classify.of(3), [1e-4], steps=2)
    assert not converged(slopes[0], x.dtype)
    said: list[str] = []
    monkeypatch.setattr(lbfgs.progress, "say", said.append)
    separable = torch.cat([x, 10 * torch.eye(3, dtype=torch.float64)[labels]], 1)
    settings = ProbeSettings(optimizer="lbfgs", weight_decays=(0.0,))
    probe_grid(separable, labels, separable, labels, Classify.of(3), settings)
    assert all("L-BFGS stopped" in line for line in said)  # without a penalty the optimum may lie at infinity
