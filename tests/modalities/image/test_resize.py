"""The centre of a resized image, without the image: equal where the whole can be made, and cheap where it cannot."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_lightning.modalities.image import resize as module
from ssl_lightning.modalities.image.resize import resize, resized_centre
from ssl_lightning.modalities.image.views import View, Views, WorkerCrops


def by_the_whole(image: Tensor, shorter: int, size: int) -> Tensor:
    height, width, _ = image.shape
    short = min(height, width)
    image = resize(image, shorter * height // short, shorter * width // short)
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("short", "long", "shorter", "size"),
    [(1, 300, 64, 64), (3, 1000, 32, 32), (7, 201, 33, 33), (30, 2000, 64, 64), (63, 900, 64, 64), (10, 77, 40, 32)],
)
def test_a_long_images_centre_is_that_of_the_whole(
    short: int, long: int, shorter: int, size: int, channels: int
) -> None:
    for height, width in ((short, long), (long, short)):
        image = torch.randint(0, 256, (height, width, channels), dtype=torch.uint8)  # noise: no error hides in it
        got, expected = resized_centre(image, shorter, size), by_the_whole(image, shorter, size)
        assert (got.dtype, got.shape) == (torch.uint8, (size, size, channels))
        assert got.is_contiguous()
        assert int((got.int() - expected.int()).abs().max()) <= 1
        assert float((got != expected).float().mean()) < 0.1  # halves are rounded either way


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 375), (64, 64), (20, 33), (1, 1), (50, 190), (600, 100), (3000, 70)]
)
def test_ordinary_images_are_resized_whole(height: int, width: int) -> None:
    """To the bit as before; also long ones that shrink."""
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    assert torch.equal(resized_centre(image, 64, 64), by_the_whole(image, 64, 64))


@pytest.mark.parametrize(("height", "width"), [(1, 8000), (8000, 1), (20000, 30), (30, 20000), (1, 2), (2, 1)])
def test_no_image_grows_beyond_a_few_crops(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    interpolate: Any = module.interpolate

    def counting(x: Tensor, size: tuple[int, int], **how: Any) -> Tensor:
        made.append(size[0] * size[1])
        return interpolate(x, size, **how)

    monkeypatch.setattr(module, "interpolate", counting)
    image = torch.zeros(height, width, 3, dtype=torch.uint8)
    image[height // 2, width // 2] = 255
    assert int(resized_centre(image, 224, 224).max()) > 200
    crops = WorkerCrops(Views(View(224, count=2)), 0)
    assert [tuple(view.shape) for view in crops(image, 5, 1)] == [(224, 224, 3)] * 2
    assert max(made) <= 4 * 224 * 224
