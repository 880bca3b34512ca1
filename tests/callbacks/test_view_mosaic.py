"""ViewMosaic: the picture shows the views' own pixels, once, at the start of a new run."""

from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.view_mosaic import ViewMosaic, mosaic
from tests.callbacks.toy import ToyMethod, fit
from tests.parts.test_ema_teacher import StopAfter


def test_pixels_are_denormalised_and_in_place() -> None:
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    pixels = [torch.randint(256, (10, 3, size, size), dtype=torch.uint8) for size in (6, 6, 3)]
    views = [(p.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1) for p in pixels]
    picture = mosaic(views, mean, std, rows=8, gap=2)
    side, step = 132, 134  # 6 px enlarged 22 times, the smallest multiple that is 128 or more
    assert picture.shape == (8 * step - 2, 3 * step - 2, 3)
    for row in range(8):
        for column in range(3):
            cell = picture[step * row : step * row + side, step * column : step * column + side].permute(2, 0, 1)
            times = side // views[column].shape[-1]
            assert torch.equal(cell, pixels[column][row].repeat_interleave(times, 1).repeat_interleave(times, 2))
    assert (picture[side:step] == 255).all()
    assert (picture[:, side:step] == 255).all()


def test_large_views_keep_their_size() -> None:
    views = [torch.zeros(1, 3, 160, 200, dtype=torch.uint8), torch.zeros(1, 3, 80, 100, dtype=torch.uint8)]
    assert mosaic(views, torch.zeros(3), torch.ones(3)).shape == (160, 402, 3)


def test_saved_once_and_not_after_a_resume(tmp_path: Path) -> None:
    fit(ToyMethod(), tmp_path, [ViewMosaic(tmp_path, rows=4), StopAfter(1), Checkpoint(tmp_path)], max_epochs=2)
    picture = pil_to_tensor(Image.open(tmp_path / "views.png"))
    assert picture.shape == (3, 4 * 130 - 2, 2 * 130 - 2)  # 2 px enlarged 64 times
    (tmp_path / "views.png").unlink()
    fit(ToyMethod(), tmp_path, [ViewMosaic(tmp_path)], ckpt_path=tmp_path / "checkpoints/last.ckpt", max_epochs=2)
    assert not (tmp_path / "views.png").exists()
