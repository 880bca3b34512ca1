"""Lab colours against the standards' numbers, and colours as classes against the paper."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from ssl_lightning.core.errors import UserError
from ssl_lightning.parts.color_bins import ColorBins
from ssl_lightning.parts.lab import ab_centers, lab_to_rgb, rgb_to_lab
from tests.losses import reference_masked as paper

KNOWN = {  # sRGB -> L*, a*, b* under D65, from published tables
    (1, 1, 1): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (1, 0, 0): (53.24, 80.09, 67.20),
    (0, 1, 0): (87.73, -86.18, 83.18),
    (0, 0, 1): (32.30, 79.19, -107.86),
    (0.5, 0.5, 0.5): (53.39, 0.0, 0.0),
}


def pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)


@pytest.mark.parametrize(("rgb", "lab"), KNOWN.items())
def test_known_colours(rgb, lab) -> None:
    torch.testing.assert_close(rgb_to_lab(pixel(*rgb)), pixel(*lab), atol=0.02, rtol=0)


@given(some.lists(some.floats(0, 1), min_size=3, max_size=3))
def test_colours_come_back(rgb: list[float]) -> None:
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(pixel(*rgb))), pixel(*rgb), atol=1e-4, rtol=0)


def test_colours_are_whole_under_autocast() -> None:
    grey = pixel(0.3, 0.3, 0.3).float()
    with torch.autocast("cpu", torch.bfloat16):
        lab = rgb_to_lab(grey)
        back = lab_to_rgb(lab)
    torch.testing.assert_close(lab, rgb_to_lab(grey), atol=0, rtol=0)
    torch.testing.assert_close(back, grey, atol=1e-4, rtol=0)


def test_cells_are_made_on_the_cpu_and_moved() -> None:
    with torch.device("meta"):
        assert ColorBins(size=35.0).centers.device.type == "meta"
    assert ColorBins(size=35.0).centers.device.type == "cpu"


def test_what_srgb_does_not_have_is_cut() -> None:
    found = lab_to_rgb(pixel(50, 200, -200))
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_cells_hold_the_colours_of_srgb() -> None:
    centers = ab_centers()
    assert len(centers) == 262
    corners = torch.cat([rgb_to_lab(pixel(*rgb))[0, 1:, 0, 0][None] for rgb in KNOWN])
    assert (torch.cdist(corners, centers.double()).amin(1) <= 50**0.5).all()


def drawn_ab(rows: int) -> torch.Tensor:
    return 60 * torch.randn(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_codes_equal_the_paper() -> None:
    bins, ab = ColorBins().double(), drawn_ab(6)
    expected = torch.stack([paper.soft_encode(row, bins.centers) for row in ab])
    torch.testing.assert_close(bins.encode(ab), expected, atol=1e-10, rtol=0)


def test_weights_equal_the_paper() -> None:
    """Rebalancing of a prior that was smoothed by hand; the mean weight of the colours seen is 1."""
    bins = ColorBins(size=40.0, sigma=30.0).double()
    for seed in range(2):
        codes = bins.encode(drawn_ab(20 + seed))
        bins.count(codes)
    prior = bins.seen / bins.seen.sum()
    smooth = torch.zeros_like(prior)
    for source, share in zip(bins.centers, prior, strict=True):
        kernel = torch.stack([(-(source - other).pow(2).sum() / (2 * 30.0**2)).exp() for other in bins.centers])
        smooth += share * kernel / kernel.sum()
    expected = paper.ab_rebalancing(smooth, 0.5)
    torch.testing.assert_close(bins.weights(codes), expected[codes.argmax(1)], atol=1e-10, rtol=0)
    every = torch.eye(len(prior), dtype=torch.float64)
    torch.testing.assert_close((smooth * bins.weights(every)).sum(), torch.tensor(1.0, dtype=torch.float64))


def test_weights_are_whole_under_autocast() -> None:
    bins = ColorBins(size=40.0, sigma=30.0)
    codes = bins.encode(drawn_ab(20).float())
    bins.count(codes)
    with torch.autocast("cpu", torch.bfloat16):
        found = bins.weights(codes)
    torch.testing.assert_close(found, bins.weights(codes), atol=0, rtol=0)


def test_a_sure_prediction_gives_its_colour_and_an_unsure_one_the_mean() -> None:
    bins = ColorBins(size=40.0).double()
    sure = 1000.0 * torch.eye(len(bins.centers), dtype=torch.float64)[:2]
    torch.testing.assert_close(bins.decode(sure), bins.centers[:2], atol=1e-9, rtol=0)
    torch.testing.assert_close(bins.decode(0 * sure), bins.centers.mean(0).expand(2, 2), atol=1e-9, rtol=0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="neighbours=0"):
        ColorBins(neighbours=0)
