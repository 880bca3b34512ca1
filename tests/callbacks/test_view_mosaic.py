"""ViewMosaic: the picture shows the views' own pixels, once, at the start of a new run."""

from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.view_mosaic import ViewMosaic, mosaic
from tests.callbacks.test_ema_teacher import StopAfter
from tests.callbacks.toy import ToyMethod, fit


def test_pixels_are_denormalised_and_in_place() -> None:
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    pixels = [torch.randint(256, (10, 3, size, size), dtype=torch.uint8) for size in (6, 6, 3)]
    views = [(p.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1) for p in pixels]
    picture = mosaic(views, mean, std, rows=8, gap=2)
    assert picture.shape == (8 * 8 - 2, 3 * 8 - 2, 3)
    for row in range(8):
        for column in range(2):
            tile = picture[8 * row : 8 * row + 6, 8 * column : 8 * column + 6].permute(2, 0, 1)
            assert torch.equal(tile, pixels[column][row])
        small = picture[8 * row : 8 * row + 6, 16:22].permute(2, 0, 1)
        assert torch.equal(small, pixels[2][row].repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert (picture[6:8] == 255).all()
    assert (picture[:, 6:8] == 255).all()


def test_saved_once_and_not_after_a_resume(tmp_path: Path) -> None:
    fit(ToyMethod(), tmp_path, [ViewMosaic(tmp_path, rows=4), StopAfter(1), Checkpoint(tmp_path)], max_epochs=2)
    picture = pil_to_tensor(Image.open(tmp_path / "views.png"))
    assert picture.shape == (3, 4 * 4 - 2, 2 * 4 - 2)
    (tmp_path / "views.png").unlink()
    fit(ToyMethod(), tmp_path, [ViewMosaic(tmp_path)], ckpt_path=tmp_path / "checkpoints/last.ckpt", max_epochs=2)
    assert not (tmp_path / "views.png").exists()
