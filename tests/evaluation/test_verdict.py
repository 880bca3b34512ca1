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
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.regress import Regress
from tests.stages.tiny_run import TinyData, two_views

HEALTHY = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
POINT = torch.ones(100, 16) + 0.001 * HEALTHY
LINE = torch.randn(100, 1, generator=torch.Generator().manual_seed(1)) * torch.ones(1, 16)


def results(
    knn: float, linear: float, random: float, pixels: float | None = None, start: float | None = None
) -> dict[str, object]:
    beside: dict[str, dict[str, float]] = {"random_init": {"knn_top1": random, "linear_top1": random}}
    beside |= {"raw_pixels": {"knn_top1": pixels}} if pixels is not None else {}
    beside |= {"start": {"knn_top1": start, "linear_top1": start}} if start is not None else {}
    return {"knn_top1": knn, "linear_top1": linear, "baselines": beside}


def test_what_a_healthy_run_has_added() -> None:
    assert verdict.of(results(0.8, 0.5, 0.4), HEALTHY) == (
        "These features beat random weights (kNN 80.0 % against 40.0 %, linear 50.0 % against 40.0 %)."
    )
    assert verdict.of(results(0.8, 0.5, 0.4, pixels=0.6), HEALTHY) == (
        "These features beat random weights (kNN 80.0 % against 40.0 %, linear 50.0 % against 40.0 %) and raw pixels "
        "(kNN 80.0 % against 60.0 %)."
    )
    assert verdict.of(results(0.6, 0.35, 0.4), HEALTHY) == (
        "These features beat random weights (kNN 60.0 % against 40.0 %)."  # what is within chance is left out
    )
    assert verdict.of({}, HEALTHY).startswith("No collapse: the images get different features.")


def test_chance_is_not_taken_for_a_difference() -> None:
    """Of 100 items at 40 %, two standard errors are 9.8 points."""
    assert verdict.of(results(0.45, 0.42, 0.4), HEALTHY).startswith(
        "No better than random weights (kNN 45.0 % against 40.0 %, linear 42.0 % against 40.0 %; the difference is "
        "within chance for 100 test images): train longer"
    )
    assert "beat random weights" in verdict.of(results(0.499, 0.42, 0.4), HEALTHY)
    assert verdict.of(results(0.49, 0.2, 0.4), HEALTHY).startswith("Random weights beat these features")
    assert verdict.of(results(0.31, 0.31, 0.4), HEALTHY).startswith("No better than random weights")
    assert verdict.of(results(0.29, 0.31, 0.4), HEALTHY).startswith("Random weights beat these features (kNN 29.0 %")


def test_two_measures_that_say_the_opposite_are_both_told() -> None:
    """Neither is "better" alone; within chance they do not disagree."""
    assert verdict.of(results(0.6, 0.2, 0.4), HEALTHY) == (
        "Better than random weights by one measure and worse by the other, both beyond chance "
        "(kNN 60.0 % against 40.0 %, but linear 20.0 % against 40.0 %)."
    )
    assert "worse by the other" not in verdict.of(results(0.6, 0.35, 0.4), HEALTHY)
    started = verdict.of(results(0.8, 0.7, 0.4, start=0.75), HEALTHY)
    assert "Better than the weights it began with by one measure" in verdict.of(
        {**results(0.85, 0.55, 0.4, start=0.7)}, HEALTHY
    )
    assert "by one measure" not in started
    found = results(0.8, 0.5, 0.4)
    found["baselines"]["raw_pixels"] = {"knn_top1": 0.6, "linear_top1": 0.7}  # type: ignore[index]
    assert verdict.of(found, HEALTHY).endswith(
        "Better than raw pixels by one measure and worse by the other, both beyond chance "
        "(kNN 80.0 % against 60.0 %, but linear 50.0 % against 70.0 %)."
    )


def test_raw_pixels_that_are_as_good_are_told() -> None:
    beaten = verdict.of(results(0.6, 0.6, 0.4, pixels=0.8), HEALTHY)
    assert beaten == (
        "Raw pixels beat these features (kNN 60.0 % against 80.0 %): train longer (raise trainer.max_epochs). Random "
        "weights do worse (kNN 60.0 % against 40.0 %, linear 60.0 % against 40.0 %)."
    )
    equal = verdict.of(results(0.6, 0.6, 0.4, pixels=0.55), HEALTHY)
    assert ", but are no better than raw pixels (kNN 60.0 % against 55.0 %): train longer" in equal


@pytest.mark.parametrize(("start", "words"), [(0.5, "Better"), (0.75, "No better"), (0.95, "Worse")])
def test_what_is_added_to_given_weights(start: float, words: str) -> None:
    told = verdict.of(results(0.8, 0.8, 0.4, start=start), HEALTHY)
    assert f". {words} than the weights it began with (kNN 80.0 % against {100 * start:.1f} %" in told


def test_what_training_on_labels_has_brought() -> None:
    task = Classify.of(4)
    assert verdict.against(0.8, 0.6, 100, task, "training from scratch") == (
        "Better than training from scratch: 80.0 % against 60.0 %."
    )
    assert verdict.against(0.4, 0.6, 100, task, "x") == "Worse than x: 40.0 % against 60.0 %."
    assert verdict.against(0.61, 0.6, 100, task, "x").startswith("No better than x: 61.0 % against 60.0 %, a diff")


@pytest.mark.parametrize(("pixels", "beaten"), [(0.9, True), (0.81, False), (0.3, False)])
def test_training_on_labels_is_compared_with_raw_pixels(pixels: float, beaten: bool) -> None:
    given = {"from_scratch": {"finetune_top1": 0.99}, "raw_pixels": {"linear_top1": pixels, "variant": "centered"}}
    told = verdict.against(0.8, 0.6, 400, Classify.of(4), "training from scratch", given)
    assert told.startswith("Better than training from scratch: 80.0 % against 60.0 %.")
    assert ("A linear probe on raw pixels does better, with 90.0 %" in told) == beaten


def test_collapse_is_told_with_what_helps() -> None:
    assert verdict.of(results(0.1, 0.1, 0.4), POINT).startswith(
        "Collapsed: all images get nearly the same features (spread 0.0"
    )
    assert "base_lr" in verdict.of({}, POINT)
    assert verdict.of({}, LINE).startswith(
        "Collapsed: the features vary along few directions (effective rank 1.0 of 16)"
    )
    # features far from the origin have little spread, and may be good all the same
    assert verdict.of(results(0.9, 0.9, 0.4), POINT).startswith("These features beat random weights")
    assert " Yet all images get nearly the same features" in verdict.of(results(0.9, 0.9, 0.4), POINT)


def test_images_that_are_all_alike_are_no_collapse() -> None:
    assert verdict.of({}, POINT, lambda: torch.full((100, 12), 0.5)) == "No verdict: the test images are all alike."
    assert verdict.of({}, POINT, lambda: torch.rand(100, 12)).startswith("Collapsed")
    assert verdict.of({}, HEALTHY[:1]) == "No verdict: there is only one test image."


def test_pixels_are_looked_at_for_a_collapse_alone() -> None:
    def never() -> Tensor:
        raise AssertionError

    verdict.of({}, HEALTHY, never)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_no_numbers_are_counted(bad: float) -> None:
    x = HEALTHY.clone()
    assert verdict.not_finite(x, "test") == ""
    x[3, 2] = x[7, 1] = bad
    assert verdict.not_finite(x, "test").startswith("No verdict: the features of 2 of 100 test images are not finite; ")


def test_weights_that_did_not_move_or_are_no_numbers() -> None:
    begun = ConvNetSmall(4)
    net = ConvNetSmall(4)
    assert verdict.of_weights(net, begun) == ""
    net.load_state_dict(begun.state_dict())
    assert verdict.of_weights(net, begun).startswith("The weights have not moved")
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(0.99)  # weight decay alone
    assert verdict.of_weights(net, begun).startswith("The weights have not moved")
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
    assert same["verdict"] == "No verdict: the test images are all alike."

    class Broken(nn.Module):
        out_dim = 4

        def forward(self, x: Tensor) -> Tensor:
            return x.new_full((len(x), 4), math.nan)

    broken = judging.judge_backbone(Broken(), ConvNetSmall(4), TinyData(**data), cpu)
    assert set(broken) == {"verdict"}
    assert broken["verdict"].startswith("No verdict: the features of ")

    class Flat(Broken):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_ones(len(x), 4)

    flat = judging.judge_backbone(Flat(), ConvNetSmall(4), TinyData(**data), cpu)
    assert flat["verdict"].startswith("Collapsed: all images get nearly the same features (spread 0.000")


def test_what_is_worse_than_one_answer_for_all_is_nothing_learned() -> None:
    task = Regress().prepare(["age"], torch.arange(4.0)[:, None])

    def words(mine: float, constant: float) -> str:
        beside = {"random_init": {"knn_r2": -2.0}, "train_mean": {"r2": constant, "mae": 1.0}}
        return verdict.of({"knn_r2": mine, "baselines": beside}, HEALTHY, task=task)

    assert words(-0.5, -0.1).startswith(
        "Nothing useful learned: no better than giving every image the same answer (the training mean: R2 -0.100; "
    )
    assert words(0.3, -0.1) == "These features beat random weights (kNN R2 0.300 against R2 -2.000)."
