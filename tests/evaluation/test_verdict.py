"""The verdict in words, for each way in which a run can have gone."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.evaluation import verdict
from ssl_lightning.modalities.image.images import ArrayImages, ImageSet
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.stages import judging
from ssl_lightning.tasks.regress import Regress
from tests.stages.tiny_run import TinyData, two_views

HEALTHY = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
POINT = torch.ones(100, 16) + 0.001 * HEALTHY
LINE = torch.randn(100, 1, generator=torch.Generator().manual_seed(1)) * torch.ones(1, 16)


def results(knn: float, linear: float, random: float) -> dict[str, object]:
    beside = {"random_init": {"knn_top1": random, "linear_top1": random}}
    return {"knn_top1": knn, "linear_top1": linear, "baselines": beside}


def test_what_a_healthy_run_has_added() -> None:
    assert verdict.of(results(0.8, 0.5, 0.4), HEALTHY) == (
        "above random weights: kNN 80.0 % against 40.0 %, linear 50.0 % against 40.0 %"
    )
    assert verdict.of(results(0.45, 0.42, 0.4), HEALTHY).startswith(
        "nothing learned that shows: not above random weights"
    )
    assert verdict.of({}, HEALTHY).startswith("no collapse")


def test_collapse_is_told_with_what_helps() -> None:
    assert verdict.of(results(0.1, 0.1, 0.4), POINT).startswith(
        "collapsed: all images get nearly the same features (spread 0.0"
    )
    assert "base_lr" in verdict.of({}, POINT)
    assert verdict.of({}, LINE).startswith(
        "collapsed: the features vary along few directions (effective rank 1.0 of 16)"
    )
    # features far from the origin have little spread, and may be good all the same
    assert verdict.of(results(0.9, 0.9, 0.4), POINT).startswith("above random weights")
    assert "; yet all images get nearly the same features" in verdict.of(results(0.9, 0.9, 0.4), POINT)


def test_images_that_are_all_alike_are_no_collapse() -> None:
    assert verdict.of({}, POINT, lambda: torch.full((100, 12), 0.5)) == "no verdict: the test images are all alike"
    assert verdict.of({}, POINT, lambda: torch.rand(100, 12)).startswith("collapsed")
    assert verdict.of({}, HEALTHY[:1]) == "no verdict: there is one test image"


def test_pixels_are_looked_at_for_a_collapse_alone() -> None:
    def never() -> Tensor:
        raise AssertionError

    verdict.of({}, HEALTHY, never)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_no_numbers_are_counted(bad: float) -> None:
    x = HEALTHY.clone()
    assert verdict.not_finite(x, "test") == ""
    x[3, 2] = x[7, 1] = bad
    assert verdict.not_finite(x, "test").startswith("no verdict: the features of 2 of 100 test images are not finite; ")


def test_weights_that_did_not_move_or_are_no_numbers() -> None:
    begun = ConvNetSmall(4)
    net = ConvNetSmall(4)
    assert verdict.of_weights(net, begun) == ""
    net.load_state_dict(begun.state_dict())
    assert verdict.of_weights(net, begun).startswith("the weights have not moved")
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(0.99)  # weight decay alone
    assert verdict.of_weights(net, begun).startswith("the weights have not moved")
    with torch.no_grad():
        next(net.parameters())[0] += 0.001
    assert verdict.of_weights(net, begun) == ""
    name = next(key for key in net.state_dict() if key.endswith("running_var"))
    net.state_dict()[name].fill_(math.inf)
    assert f"not finite ('{name}')" in verdict.of_weights(net, begun)


class Constant(TinyData):
    """Images of one grey."""

    def load(self) -> tuple[ImageSet, ImageSet]:
        train, test = super().load()
        return tuple(ArrayImages(torch.full_like(s.images, 128), s.labels, s.classes) for s in (train, test))  # type: ignore[attr-defined, return-value]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_whole_verdict_survives_what_is_degenerate(labelled: bool, tmp_path: Path) -> None:
    cpu, data = torch.device("cpu"), {"labelled": labelled, "views": two_views()}
    same = judging.judge_backbone(ConvNetSmall(4), ConvNetSmall(4), Constant(**data), cpu)
    assert same["verdict"] == "no verdict: the test images are all alike"

    class Broken(nn.Module):
        out_dim = 4

        def forward(self, x: Tensor) -> Tensor:
            return x.new_full((len(x), 4), math.nan)

    broken = judging.judge_backbone(Broken(), ConvNetSmall(4), TinyData(**data), cpu)
    assert set(broken) == {"verdict"}
    assert broken["verdict"].startswith("no verdict: the features of ")

    class Flat(Broken):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_ones(len(x), 4)

    flat = judging.judge_backbone(Flat(), ConvNetSmall(4), TinyData(**data), cpu)
    assert flat["verdict"].startswith("collapsed: all images get nearly the same features (spread 0.000")


def test_what_is_worse_than_one_answer_for_all_is_nothing_learned() -> None:
    task = Regress().prepare(["age"], torch.arange(4.0)[:, None])

    def words(mine: float, constant: float) -> str:
        beside = {"random_init": {"knn_r2": -2.0}, "train_mean": {"r2": constant, "mae": 1.0}}
        return verdict.of({"knn_r2": mine, "baselines": beside}, HEALTHY, task=task)

    assert words(-0.5, -0.1).startswith(
        "nothing learned that shows: no better than the same answer for all, train_mean"
    )
    assert words(0.3, -0.1) == "above random weights: kNN R2 0.300 against R2 -2.000"
