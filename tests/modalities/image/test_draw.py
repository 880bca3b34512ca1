"""The drawn parameters against those that torchvision's transforms draw: Kolmogorov-Smirnov and chi-square tests."""

import math

import pytest
import torch
from torch import Tensor
from torchvision import transforms

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.draw import LocalView, View, Views, draw_colours, draw_crops, draw_windows

N = 4000


def kolmogorov_smirnov(a: Tensor, b: Tensor) -> float:
    """The largest distance of the distribution functions, in units of what chance exceeds once in 10,000."""
    a, b = a.double().sort().values, b.double().sort().values
    values = torch.cat([a, b])
    distance = (
        torch.searchsorted(a, values, right=True) / len(a) - torch.searchsorted(b, values, right=True) / len(b)
    ).abs()
    return float(distance.max()) / (math.sqrt(-math.log(0.5e-4) / 2) * math.sqrt(1 / len(a) + 1 / len(b)))


def test_the_statistic_can_fail() -> None:
    a, b = torch.rand(N), torch.rand(N)
    assert kolmogorov_smirnov(a, b) < 1 < min(kolmogorov_smirnov(a, b * 0.93), kolmogorov_smirnov(a, (b + 0.07) % 1.1))


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (375, 500, (0.2, 1.0), (3 / 4, 4 / 3)),
        (30, 100, (0.5, 1.0), (3 / 4, 4 / 3)),  # most tries do not fit: the wide fallback
        (100, 41, (0.6, 1.0), (3 / 4, 4 / 3)),  # the tall one
        (16, 16, (0.95, 1.0), (0.5, 2.0)),  # and the whole image
    ],
)
def test_crops_follow_torchvision(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    image = torch.empty(3, height, width)
    get_params = transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([get_params(image, list(scale), list(ratio)) for _ in range(N)])  # top, left, height, width
    view = View(32, scale=scale, ratio=ratio)
    crops = draw_crops(view, 1, height, width, seed=7, epoch=2, indices=torch.arange(N))
    ours = torch.stack([crops.top, crops.left, crops.height, crops.width], 1)
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    for of in (
        lambda c: c[:, 0],
        lambda c: c[:, 1],
        lambda c: c[:, 2],
        lambda c: c[:, 3],
        lambda c: c[:, 2] * c[:, 3],
        lambda c: c[:, 3] / c[:, 2],
        lambda c: c[:, 0] / (height - c[:, 2]).clamp(min=1),  # the place within what is left
        lambda c: c[:, 0] + 3 * c[:, 1] - 2 * c[:, 3],  # some mixture: their joint distribution
    ):
        assert kolmogorov_smirnov(of(ours), of(theirs)) < 1


SIZES = [(32, 32), (375, 500), (3000, 4000), (30, 100), (100, 41), (1, 1), (2, 3), (1, 8000), (8000, 1), (20000, 30)]


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [
        ((0.08, 1.0), (3 / 4, 4 / 3)),
        ((0.05, 0.14), (3 / 4, 4 / 3)),
        ((0.95, 1.0), (0.5, 2.0)),
        ((0.2, 1.0), (3.0, 4.0)),
    ],
)
def test_windows_of_single_images_are_the_batchs(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """The same integers, whatever the size, and the same drawn alone; each lies in its image and holds a pixel."""
    view, indices = View(32, scale=scale, ratio=ratio), torch.arange(200) * 7
    windows = draw_windows(view, 3, seed=5, epoch=2, indices=indices)
    for height, width in SIZES:
        crops = draw_crops(view, 3, height, width, 5, 2, indices)
        wanted = torch.stack([crops.top, crops.left, crops.height, crops.width, crops.flip.long()], 1)
        assert torch.tensor([[int(v) for v in window(height, width)] for window in windows]).equal(wanted)
        alone = draw_windows(view, 3, 5, 2, indices[9:10])[0]
        assert alone(height, width) == windows[9](height, width)
        assert (wanted[:, :2] >= 0).all()
        assert (wanted[:, 2:4] >= 1).all()
        assert (wanted[:, 0] + wanted[:, 2] <= height).all()
        assert (wanted[:, 1] + wanted[:, 3] <= width).all()


def test_colours_follow_torchvision() -> None:
    view = View(32, brightness=0.8, contrast=0.4, saturation=1.3, hue=0.2, blur_p=0.5, solarize_p=0.2)
    jitter = transforms.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
    bounds = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    drawn = [transforms.ColorJitter.get_params(*bounds) for _ in range(N)]
    ours = draw_colours(view, 0, seed=3, epoch=1, indices=torch.arange(N))
    for k in range(4):
        assert kolmogorov_smirnov(ours.factors[:, k], torch.tensor([d[k + 1] for d in drawn])) < 1
    sigma = torch.empty(N).uniform_(*view.blur_sigma)
    assert kolmogorov_smirnov(ours.sigma, sigma) < 1
    code = (ours.order * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = code.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - N / 24) ** 2 / (N / 24)).sum() < 57  # 23 degrees of freedom: exceeded once in 10,000
    flips = draw_crops(view, 0, 32, 32, 3, 1, torch.arange(N)).flip
    switches = {"jitter": 0.8, "grayscale": 0.2, "blur": 0.5, "solarize": 0.2}
    for drawn_by_us, p in [(flips, 0.5)] + [(getattr(ours, name), p) for name, p in switches.items()]:
        assert abs(float(drawn_by_us.double().mean()) - p) < 4 * math.sqrt(p * (1 - p) / N)


def test_parameters_are_independent() -> None:
    """Of each other, of the other view's and of the next epoch's."""
    view, indices = View(32, scale=(0.3, 0.6)), torch.arange(N)

    def columns(place: int, epoch: int) -> list[Tensor]:
        crops, colours = (
            draw_crops(view, place, 64, 64, 0, epoch, indices),
            draw_colours(view, place, 0, epoch, indices),
        )
        switches = [crops.flip, colours.jitter, colours.grayscale, colours.blur * 0 + colours.sigma]
        return [
            crops.height * crops.width,
            crops.height / crops.width,
            *switches,
            *colours.factors.T,
            *colours.order.T[:3],
        ]

    x = torch.stack([c.double() for c in columns(0, 0) + columns(1, 0) + columns(0, 1)])
    correlation = torch.corrcoef(x) - torch.eye(len(x))
    each = len(x) // 3
    for i in range(3):  # the places of the four operations exclude each other
        correlation[(i + 1) * each - 3 : (i + 1) * each, (i + 1) * each - 3 : (i + 1) * each] = 0
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(N)


def test_probabilities_0_and_1() -> None:
    indices = torch.arange(500)
    never = View(32, flip_p=0, jitter_p=0, grayscale_p=0, blur_p=0, solarize_p=0)
    always = View(32, flip_p=1, jitter_p=1, grayscale_p=1, blur_p=1, solarize_p=1)
    for view, expected in ((never, False), (always, True)):
        colours = draw_colours(view, 0, 0, 0, indices)
        switches = colours.jitter, colours.grayscale, colours.blur, colours.solarize
        for drawn in (draw_crops(view, 0, 32, 32, 0, 0, indices).flip, *switches):
            assert (drawn == expected).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": [0.5, 0.2]}, "scale"),
        ({"scale": [0.5, 1.2]}, "scale"),
        ({"ratio": [0.0, 1.0]}, "ratio"),
        ({"blur_sigma": [1.0]}, "blur_sigma"),
        ({"jitter_p": 1.5}, "jitter_p"),
        ({"hue": 0.6}, "hue"),
        ({"contrast": -0.1}, "contrast"),
        ({"size": 1}, "size"),
        ({"count": 0}, "count"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        View(**{"size": 32, **settings})
    assert "\n" not in str(error.value)


def test_views_in_order() -> None:
    a, b, c = View(32, count=2), View(32, solarize_p=0.2), LocalView(32, count=3)
    assert Views(a, b, c).list() == [a, a, b, c, c, c]
    assert [LocalView(size).size for size in (32, 64, 96, 224)] == [14, 28, 42, 96]
    with pytest.raises(UserError, match="part"):
        LocalView(32, part=1.0)
