"""stage=doctor on the views: what destroys the labels is found by name, and what does not is left alone."""

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.modalities.audio.draw import AudioView, AudioViews
from ssl_lightning.modalities.image.draw import LocalView, View, Views
from ssl_lightning.modalities.image.operations import Gamma, Rotate
from ssl_lightning.stages import doctor_views
from tests.stages.test_doctor_stage import simclr
from tests.stages.tiny_run import TinyData


class MeanColour(nn.Module):
    """Features that are the colour alone, which is all that the classes of `TinyData` are."""

    out_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * self.weight


def said(views: Views, labelled: bool = True) -> list[tuple[str, str, str]]:
    data = TinyData(train=240, test=30, views=views, num_workers=0, labelled=labelled)
    return [(line.level, line.says, line.fix) for line in doctor_views.look(simclr(MeanColour()), data, 60)]


def test_hue_that_turns_one_class_into_another_is_named() -> None:
    strong = View(16, count=2, scale=(0.5, 1.0), jitter_p=1.0, brightness=0.1, contrast=0, saturation=0, hue=0.5)
    ((mark, what, fix),) = said(Views(View(**{**vars(strong), "grayscale_p": 0.0})))
    assert mark == "watch"
    assert "hue hurts most" in what
    assert "features of random weights" in what
    assert fix.startswith("turn hue down")


def test_views_that_keep_the_labels_are_fine() -> None:
    ((mark, what, fix),) = said(Views(View(16, count=2, scale=(0.5, 1.0), jitter_p=0, grayscale_p=0)))
    assert (mark, fix) == ("ok", "")
    assert "lie nearest to another class" in what


def test_without_labels_there_is_nothing_to_say() -> None:
    assert said(Views(View(16, count=2)), labelled=False) == []


def test_an_item_is_not_its_own_neighbour() -> None:
    x = torch.eye(40)[:, :20].repeat_interleave(1, 0) + torch.randn(40, 20) * 0.01
    assert doctor_views._accuracy(x, x, torch.arange(40) % 2) < 0.9


def test_each_key_is_switched_off_alone() -> None:
    view = View(16, count=2, blur_p=0.5, also=(Gamma(), Rotate(p=0.0)))
    plan = Views(view, local=LocalView(16, part=0.5, scale=(0.1, 0.3)))
    off = plan.without()
    assert set(off) == {
        "scale", "flip_p", "brightness", "contrast", "saturation", "hue", "grayscale_p", "blur_p", "Gamma"
    }  # fmt: skip
    for key, other in off.items():
        assert other.sizes() == plan.sizes()  # type: ignore[attr-defined]
        assert other.global_1 != plan.global_1, key  # type: ignore[attr-defined]
    assert off["scale"].local.scale == (1.0, 1.0)  # type: ignore[attr-defined,union-attr]
    assert off["Gamma"].global_1.also == (Rotate(p=0.0),)  # type: ignore[attr-defined]
    sound = AudioViews(AudioView(64, noise_p=0.5)).without()
    assert set(sound) == {"crop", "gain", "noise_p"}
    assert sound["noise_p"].global_1.noise_p == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(("clean", "shown", "mark"), [(0.9, 0.85, "ok"), (0.35, 0.1, "ok"), (0.9, 0.4, "watch")])
def test_thresholds(clean: float, shown: float, mark: str) -> None:
    (line,) = doctor_views._said("image", "random weights", 0.33, clean, shown, {"hue": shown + 0.01})
    assert line.level == mark
