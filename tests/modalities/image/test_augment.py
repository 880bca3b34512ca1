"""Each batched operation against torchvision's functional on each sample, at equal parameters."""

from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssl_lightning.modalities.image import augment

B = 48
ADJUST = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


@pytest.fixture(params=["sorted", "selected"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to treat samples that drew different operations: the CPU's and the accelerators'."""
    if request.param == "selected":
        monkeypatch.setattr(augment, "_can_sort", lambda x: False)
    return str(request.param)


def pictures(height: int = 20, width: int = 24) -> Tensor:
    """Random images, with greys, black, white and ties of channels among the pixels."""
    x = torch.rand(B, 3, height, width)
    x[0], x[1], x[2], x[3] = 0.0, 1.0, 0.5, x[3].round()
    x[4] = x[4, :1]
    x[5, 1] = x[5, 0]
    x[6, 2] = x[6, 1]
    x[7, 2] = x[7, 0]
    x[8] = (x[8] * 255).round() / 255
    return x


def each(x: Tensor, op: object, *parameters: Tensor) -> Tensor:
    return torch.stack([op(x[i], *(p[i].tolist() for p in parameters)) for i in range(len(x))])  # type: ignore[operator]


@pytest.mark.parametrize("k", [0, 1, 2])
def test_blends_equal_torchvision(k: int) -> None:
    x, factor = pictures(), torch.rand(B) * 2
    factor[10], factor[11] = 0.0, 1.0
    got = (augment.brightness, augment.contrast, augment.saturation)[k](x, factor)
    torch.testing.assert_close(got, each(x, ADJUST[k], factor), rtol=0, atol=1e-6)


def test_hue_equals_torchvision() -> None:
    x, factor = pictures(), torch.rand(B) - 0.5
    factor[9:13] = torch.tensor([-0.5, 0.5, 0.0, 1e-4])
    torch.testing.assert_close(augment.hue(x, factor), each(x, F.adjust_hue, factor), rtol=0, atol=3e-6)


def test_grayscale_solarize_normalize_equal_torchvision() -> None:
    x = pictures()
    grey = F.rgb_to_grayscale(x, num_output_channels=3)
    torch.testing.assert_close(augment.grayscale(x), grey, rtol=0, atol=1e-6)
    for threshold in (0.25, 0.5, 1.0):
        torch.testing.assert_close(augment.solarize(x, threshold), F.solarize(x, threshold), rtol=0, atol=1e-7)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    got = augment.normalize(x, mean.view(3, 1, 1), std.view(3, 1, 1))
    torch.testing.assert_close(got, F.normalize(x, mean.tolist(), std.tolist()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "kernel_size"), [(32, 32, 3), (20, 24, 5), (9, 150, 9), (96, 80, 23)])
def test_blur_equals_torchvision(height: int, width: int, kernel_size: int) -> None:
    x, sigma = pictures(height, width)[:16], torch.linspace(0.1, 2.0, 16)
    expected = each(x, lambda image, s: F.gaussian_blur(image, [kernel_size] * 2, [s, s]), sigma)
    torch.testing.assert_close(augment.gaussian_blur(x, sigma, kernel_size), expected, rtol=0, atol=3e-6)


def test_blur_has_no_denormal_weights() -> None:
    weights = augment.blur_matrix(torch.linspace(0.05, 3, 400), 64, 23)
    assert float(weights[weights > 0].min()) > 1e-8
    torch.testing.assert_close(weights.sum(2), torch.ones(400, 64), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(32, 32, 32), (32, 32, 14), (40, 25, 48), (7, 50, 16), (90, 64, 9)]
)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resized_crop_equals_torchvision(height: int, width: int, size: int, mode: str) -> None:
    images = torch.randint(0, 256, (B, height, width, 3), dtype=torch.uint8)
    h, w = torch.randint(1, height + 1, (B,)), torch.randint(1, width + 1, (B,))
    h[0], w[0], h[1], w[1], h[2], w[2] = height, width, 1, 1, min(size, height), min(size, width)
    top, left = (torch.rand(B) * (height - h + 1)).long(), (torch.rand(B) * (width - w + 1)).long()
    flip = torch.arange(B) % 3 == 0
    got = augment.resized_crop(images, top, left, h, w, flip, size, mode == "bicubic")

    def reference(image: Tensor, t: int, le: int, hh: int, ww: int, f: bool) -> Tensor:
        crop = F.resized_crop(image, t, le, hh, ww, [size, size], F.InterpolationMode(mode), antialias=True)
        return F.horizontal_flip(crop) if f else crop

    expected = each(images.permute(0, 3, 1, 2).float() / 255, reference, top, left, h, w, flip)
    assert mode == "bilinear" or float(expected.min()) < -0.01  # noise: the cubic overshoots, and is cut off
    torch.testing.assert_close(got, expected.clamp(0, 1), rtol=0, atol=5e-6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [24, 80])
def test_resized_crop_equals_pil(size: int, mode: str) -> None:
    """PIL rounds to 8 bits after either axis: half a level each, and the cubic weighs the first by 1.25."""
    coarse = torch.rand(8, 3, 6, 6) * 0.8 + 0.1
    images = (F.resize(coarse, [50, 60], antialias=True) * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    top, left, h, w = torch.tensor([[0, 0, 50, 60], [3, 5, 41, 33]]).repeat(4, 1).unbind(1)
    got = augment.resized_crop(images, top, left, h, w, torch.zeros(8, dtype=torch.bool), size, mode == "bicubic")
    for image, t, le, hh, ww, found in zip(images, *(v.tolist() for v in (top, left, h, w)), got, strict=True):
        picture = Image.fromarray(image.numpy()).crop((le, t, le + ww, t + hh))
        picture = picture.resize((size, size), Image.Resampling[mode.upper()])
        difference = found * 255 - torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert float(difference.abs().max()) <= 1.15
        assert float(difference.abs().mean()) < 0.4


def test_jitter_in_each_samples_own_order(path: str) -> None:
    x, rows = pictures(), torch.arange(B) % 5 != 0
    order = torch.tensor(list(permutations(range(4)))).repeat(2, 1)  # all 24, twice
    factors = torch.cat([torch.rand(B, 3) * 1.6 + 0.2, (torch.rand(B, 1) - 0.5) * 0.4], 1)

    def reference(image: Tensor, on: bool, order: list[int], factors: list[float]) -> Tensor:
        for k in order if on else ():
            image = ADJUST[k](image, factors[k])
        return image

    expected = each(x, reference, rows, order, factors)
    torch.testing.assert_close(augment.jitter(x.clone(), rows, order, factors), expected, rtol=0, atol=1e-5)
    assert torch.equal(augment.jitter(x.clone(), torch.zeros_like(rows), order, factors), x)


def test_on_rows_touches_the_chosen_only(path: str) -> None:
    x, parameter = pictures(), torch.rand(B)
    for rows in (torch.rand(B) < 0.3, torch.zeros(B, dtype=torch.bool), torch.ones(B, dtype=torch.bool)):
        got = augment.on_rows(x, rows, lambda x, p: x + p.view(-1, 1, 1, 1), parameter)
        assert torch.equal(got, torch.where(rows.view(-1, 1, 1, 1), x + parameter.view(-1, 1, 1, 1), x))


def test_kernel_size_is_odd_and_a_tenth() -> None:
    assert [augment.blur_kernel_size(size) for size in (14, 32, 64, 96, 224)] == [3, 3, 7, 9, 23]
