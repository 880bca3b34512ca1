"""MethodPictures: what a method shows of the first test images, and nothing of a method that shows nothing."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ssl_lightning.callbacks.method_pictures import MethodPictures
from tests.callbacks.toy import ToyData, ToyMethod, fit


class Shows(ToyMethod):
    def pictures(self, batch: Any) -> dict[str, list[torch.Tensor]]:
        assert not self.training
        assert not torch.is_grad_enabled()
        return {"halves": [batch.views[0], batch.views[0] / 2, torch.zeros_like(batch.views[0])]}


def test_a_row_for_each_image_and_a_column_for_each_thing_said(tmp_path: Path) -> None:
    data = ToyData()
    fit(Shows(), tmp_path, [MethodPictures(tmp_path, rows=3)], data, max_epochs=1)
    picture = pil_to_tensor(Image.open(tmp_path / "halves.png"))
    assert picture.shape == (3, 3 * 4 - 2, 3 * 4 - 2)
    first = data.queries[0].views[0][0]
    for column, share in enumerate((1.0, 0.5, 0.0)):
        pixels = share * first * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)
        expected = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
        assert torch.equal(picture[:, :2, 4 * column : 4 * column + 2], expected)


def test_a_method_without_pictures_is_left_alone(tmp_path: Path) -> None:
    fit(ToyMethod(), tmp_path, [MethodPictures(tmp_path)], max_epochs=1)
    assert not list(tmp_path.glob("*.png"))
