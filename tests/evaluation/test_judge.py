"""The verdict: the right keys and numbers, baselines under the same protocol, calibrated BatchNorm."""

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.evaluation.judge import baselines, calibrate_batchnorm, judge, quality
from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.evaluation.quality import alignment, feature_std, rankme, uniformity
from ssl_lightning.tasks.classify import Classify

PROBE = ProbeSettings(lrs=(0.01, 0.1), weight_decays=(0.0,), epochs=4)


def split(count: int, seed: int, classes: int = 3) -> Features:
    labels = torch.arange(count) % classes
    centers = torch.randn(classes, 6, generator=torch.Generator().manual_seed(9))
    x = centers[labels] + torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return Features(x, labels, torch.arange(count))


def test_judge_gives_knn_and_probe_of_the_labelled_rows() -> None:
    train, test = split(120, 0), split(60, 1)
    train.labels[::5] = -1
    found = judge(train, test, Classify.of(3), k=7, temperature=0.2, probe=PROBE)
    keep = train.labels >= 0
    x, labels = train.x[keep], train.labels[keep]
    assert found["knn_top1"] == knn_top1(x, labels, test.x, test.labels, 7, 0.2)
    assert found["linear_top1"] == probe_grid(x, labels, test.x, test.labels, Classify.of(3), PROBE).top1
    assert found["protocol"]["knn"] == "cosine, k=7, T=0.2, bank 96"
    for words in ("SGD momentum 0.9", "4 epochs", "lr (0.01, 0.1)", "10% of the training set", "chosen lr"):
        assert words in found["protocol"]["linear"]
    assert set(found) == {"knn_top1", "linear_top1", "protocol"}


def test_top5_comes_with_more_than_five_classes_and_a_small_bank_lowers_k() -> None:
    found = judge(split(12, 0, classes=6), split(12, 1, classes=6), Classify.of(6), k=20, probe=PROBE)
    assert found["linear_top1"] <= found["linear_top5"] <= 1
    assert found["protocol"]["knn"].startswith("cosine, k=12,")


def test_without_labels_only_quality_is_told() -> None:
    train, test = split(30, 0), split(30, 1)
    test.labels.fill_(-1)
    with pytest.raises(UserError, match="only quality"):
        judge(train, test, Classify.of(3))
    told = quality(test)
    assert told == {
        "rankme": rankme(test.x),
        "alignment": None,
        "uniformity": uniformity(test.x),
        "feature_std": feature_std(test.x),
    }
    assert quality(test, (train.x, test.x))["alignment"] == alignment(train.x, test.x)


def brightness(labels: Tensor, seed: int) -> Tensor:
    """Pixels whose class is in their brightness alone, to which the plain cosine is blind."""
    noise = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(seed))
    return (10 + labels.float())[:, None] + 0.1 * noise


def test_baselines_go_through_the_same_protocol_and_take_the_harder_pixels() -> None:
    random = split(90, 2), split(45, 3)
    train, test = split(90, 0), split(45, 1)
    judged = judge(*random, Classify.of(3), k=5, temperature=0.1, probe=PROBE)
    shift = 1 - train.x.mean(0)  # on these pixels the plain cosine happens to win
    for pixels, variant in (
        ((train.x + shift, test.x + shift), "plain"),
        ((brightness(train.labels, 0), brightness(test.labels, 1)), "centered"),
    ):
        found = baselines(random, pixels, Classify.of(3), k=5, temperature=0.1, probe=PROBE)
        assert found["random_init"] == {key: judged[key] for key in ("knn_top1", "linear_top1")}
        mean = pixels[0].mean(0)
        plain = knn_top1(pixels[0], train.labels, pixels[1], test.labels, 5, 0.1)
        centered = knn_top1(pixels[0] - mean, train.labels, pixels[1] - mean, test.labels, 5, 0.1)
        assert found["raw_pixels"] == {"knn_top1": max(plain, centered), "variant": variant}
        assert {"plain": plain, "centered": centered}[variant] == max(plain, centered)
        assert plain != centered


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x))).mean((2, 3))


def test_calibration_sets_the_mean_statistics_of_the_batches_and_nothing_else() -> None:
    net = Net().double()
    net.norm.running_mean.fill_(7)
    batches = [torch.randn(5, 3, 4, 4).double() * 3 + 2 for _ in range(3)]
    outputs = [net.conv(batch).detach() for batch in batches]
    weights = [p.clone() for p in net.parameters()]
    calibrate_batchnorm(net, batches)
    mean = sum(o.mean((0, 2, 3)) for o in outputs) / 3
    var = sum(o.var((0, 2, 3), unbiased=True) for o in outputs) / 3
    torch.testing.assert_close(net.norm.running_mean, mean)
    torch.testing.assert_close(net.norm.running_var, var)
    assert net.norm.momentum == 0.3
    assert all(m.training for m in net.modules())
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


def test_calibration_spares_a_network_without_batchnorm() -> None:
    def never() -> Tensor:
        raise AssertionError("no batch is needed")
        yield

    calibrate_batchnorm(nn.Linear(2, 2), never())


def test_random_features_are_those_of_the_calibrated_network() -> None:
    from tests.evaluation.test_features import loader

    net = Net()
    images = torch.cat([b.views[0] for b in loader([0, 1], [2, 3])])
    calibrate_batchnorm(net, [images])
    train = extract(net, loader([0, 1], [2, 3]))
    net.eval()
    torch.testing.assert_close(train.x, net(images).detach())
    assert train.x.mean().abs() < 1e-5


def test_with_one_training_image_there_is_no_probe() -> None:
    one = Features(torch.ones(1, 3), torch.tensor([1]), torch.tensor([0]))
    test = Features(torch.ones(2, 3), torch.tensor([1, 0]), torch.arange(2))
    found = judge(one, test, Classify.of(2))
    assert (found["knn_top1"], found["linear_top1"]) == (0.5, None)


def test_what_cannot_be_measured_is_none(caplog: pytest.LogCaptureFixture) -> None:
    features = Features(torch.full((4, 3), float("nan")), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    assert quality(features)["rankme"] is None
    assert "rankme cannot be measured" in caplog.text
