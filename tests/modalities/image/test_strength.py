"""`views.strength`: the formula, bit for bit the same at 1, and monotone."""

from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ssl_lightning.cli.run import compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.draw import View, Views
from ssl_lightning.modalities.image.operations import (
    ChannelDropout,
    Cutout,
    Elastic,
    Gamma,
    RightAngle,
    Rotate,
    StainJitter,
)
from ssl_lightning.modalities.image.views import DeviceViews

CONF = Path(__file__).parents[3] / "conf" / "views"
PRESETS = sorted(path.stem for path in CONF.glob("*.yaml") if "modalities.audio" not in path.read_text())


def preset(name: str, *words: str) -> Views:
    given = ["data=folder", "data.root=photos", "data.image_size=32", f"views={name}", *words]
    views = instantiate(compose(given).values["views"])
    assert isinstance(views, Views)
    return views


def test_simclrs_formula() -> None:
    """Color jitter of 0.8 s, 0.8 s, 0.8 s and 0.2 s, as in SimCLR's appendix A, and the rest as the docstring says."""
    for s in (0.25, 0.5, 2.0):
        (view, _) = preset("sym", f"views.strength={s}").list()
        assert (view.brightness, view.contrast, view.saturation, view.hue) == pytest.approx(
            (0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
        )
        assert view.scale == pytest.approx((max(1 - 0.92 * s, 0.02), 1.0))
        assert view.blur_sigma == pytest.approx((0.1, 0.1 + 1.9 * s))
        assert (view.blur_p, view.grayscale_p, view.jitter_p, view.flip_p) == pytest.approx(
            (min(1, 0.5 * s), 0.2 * s, 0.8, 0.5)
        )
    assert preset("sym", "views.strength=4").list()[0].hue == 0.5


def test_operations_have_their_own() -> None:
    view = View(
        16, also=(RightAngle(), Rotate(degrees=100), Elastic(), Cutout(area=(0.1, 0.4)), StainJitter(), Gamma())
    )
    got = Views(replace(view, count=1), strength=2.0).list()[0].also
    sigma = StainJitter(sigma=0.1, bias=0.1)
    assert got[:5] == (RightAngle(), Rotate(degrees=180), Elastic(alpha=68), Cutout(area=(0.2, 0.8)), sigma)
    assert got[5].gamma == pytest.approx((0.49, 2.25))  # type: ignore[attr-defined]
    assert ChannelDropout(p=0.3).scaled(0.5).p == pytest.approx(0.15)
    for op in view.also:
        assert op.scaled(1.0) == op
        x = torch.rand(3, 3, 16, 16)
        if op.numbers and not isinstance(op, RightAngle):
            quiet = op.scaled(0.0).apply(x, torch.rand(3, op.numbers))
            torch.testing.assert_close(quiet, x, rtol=0, atol=0.1 if isinstance(op, Cutout) else 1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_itself_at_one_and_grows(name: str) -> None:
    plain, one = preset(name), preset(name, "views.strength=1")
    assert plain.list() == one.list()
    assert all(a is plain.global_1 for a in plain.list()[: plain.global_1.count])
    x, indices = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8), torch.arange(4)
    a, b = (DeviceViews(v, (0.5,) * 3, (0.25,) * 3, 0)(x, indices, 1) for v in (plain, one))
    assert all(torch.equal(i, j) for i, j in zip(a, b, strict=True))
    ladder = [Views(plain.global_1, plain.global_2, plain.local, strength=s).list() for s in (0, 0.25, 0.5, 1, 2, 4)]
    for weak, strong in pairwise(ladder):
        for low, high in zip(weak, strong, strict=True):
            assert (low.size, low.count, low.ratio, low.flip_p) == (high.size, high.count, high.ratio, high.flip_p)
            assert low.scale[0] >= high.scale[0]
            assert low.scale[1] == high.scale[1]
            for field in ("brightness", "contrast", "saturation", "hue", "grayscale_p", "blur_p", "solarize_p"):
                assert getattr(low, field) <= getattr(high, field)
    for view in ladder[-1]:  # all of it is still a view
        if type(view) is View:
            View(**{field.name: getattr(view, field.name) for field in fields(View)})


def test_nothing_of_colour_and_crop_is_left_at_zero() -> None:
    x, indices = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8), torch.arange(6)
    views = Views(View(16, flip_p=0.0, blur_p=1.0, solarize_p=1.0, also=(Gamma(), Rotate())), strength=0.0)
    got = DeviceViews(views, (0.0,) * 3, (1.0,) * 3, 0)(x, indices, 1)[0]
    torch.testing.assert_close(got, x.permute(0, 3, 1, 2) / 255, rtol=0, atol=2e-5)


@pytest.mark.parametrize("strength", [-1.0, 4.5])
def test_what_is_no_strength_is_refused(strength: float) -> None:
    with pytest.raises(UserError, match="is out of range; give 0 to 4, 1 as it is"):
        Views(View(16), strength=strength)
