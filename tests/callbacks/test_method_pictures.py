"""MethodPictures: what a method shows of images from all over the test split, and nothing of one that shows nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ssl_lightning.callbacks.captions import MARGIN, corner
from ssl_lightning.callbacks.method_pictures import MethodPictures, is_kept, names_of
from tests.callbacks.toy import ToyData, ToyMethod, fit


class Shows(ToyMethod):
    def pictures(self, batch: Any) -> dict[str, list[torch.Tensor]]:
        assert not self.training
        assert not torch.is_grad_enabled()
        return {"halves": [batch.views[0], batch.views[0] / 2, torch.zeros_like(batch.views[0])]}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (2, [(0, 0), (1, 0)]),  # fewer than batches
        (3, [(0, 0), (1, 0), (2, 0)]),
        (8, [(0, 0), (0, 5), (0, 10), (1, 0), (1, 5), (1, 10), (2, 0), (2, 8)]),  # two or three of each
        (100, [(batch, place) for batch in range(3) for place in range(16)]),  # more than images
    ],
)
def test_a_column_for_each_image_and_a_row_for_each_thing_said(
    rows: int, expected: list[tuple[int, int]], tmp_path: Path
) -> None:
    data = ToyData()  # 3 batches of 16 test images
    fit(Shows(), tmp_path, [MethodPictures(tmp_path, rows)], data, max_epochs=2)
    picture = pil_to_tensor(Image.open(tmp_path / "halves.png"))
    left, top = corner(names_of("halves", 3))
    picture = picture[:, top:-MARGIN, left:-MARGIN]
    assert picture.shape == (3, 3 * 130 - 2, len(expected) * 130 - 2)  # 2 px enlarged 64 times
    for column, (batch, place) in enumerate(expected):
        image = data.queries[batch].views[0][place]
        for row, share in enumerate((1.0, 0.5, 0.0)):
            pixels = share * image * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)
            shown = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
            assert torch.equal(
                picture[:, 130 * row : 130 * row + 128 : 64, 130 * column : 130 * column + 128 : 64], shown
            )


def test_a_method_without_pictures_is_left_alone(tmp_path: Path) -> None:
    fit(ToyMethod(), tmp_path, [MethodPictures(tmp_path)], max_epochs=1)
    assert not list(tmp_path.glob("*.png"))


def test_the_pictures_of_some_epochs_are_kept(tmp_path: Path) -> None:
    assert [epoch for epoch in range(1, 600) if is_kept(epoch)] == [1, 2, 5, 10, 20, 50, 100, 200, 500]
    fit(Shows(), tmp_path, [MethodPictures(tmp_path, 3)], max_epochs=3)
    names = [file.relative_to(tmp_path).as_posix() for file in sorted(tmp_path.rglob("halves.png"))]
    assert names == ["halves.png", "pictures/epoch_001/halves.png", "pictures/epoch_002/halves.png"]
    for name, epoch in zip(names, ("3", "1", "2"), strict=True):
        with Image.open(tmp_path / name) as picture:
            assert picture.info["epoch"] == epoch


def test_rows_have_the_names_of_what_they_show() -> None:
    assert names_of("reconstruction", 3) == ["original", "masked", "reconstruction"]
    assert names_of("attention", 3) == ["original", "head 1", "head 2"]
    assert names_of("own_thing", 3) == ["original", "own thing 1", "own thing 2"]
