"""ViewMosaic: the picture shows the views' own pixels, once, at the start of a new run."""

from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ssl_lightning.callbacks.captions import MARGIN, captioned, corner, fitting, font
from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.view_mosaic import ViewMosaic, mosaic, role_names
from tests.callbacks.toy import ToyMethod, fit
from tests.parts.test_ema_teacher import StopAfter


def test_pixels_are_denormalised_and_in_place() -> None:
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    pixels = [torch.randint(256, (10, 3, size, size), dtype=torch.uint8) for size in (6, 6, 3)]
    views = [(p.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1) for p in pixels]
    picture = mosaic(views, mean, std, items=8, gap=2)
    side, step = 132, 134  # 6 px enlarged 22 times, the smallest multiple that is 128 or more
    assert picture.shape == (3 * step - 2, 8 * step - 2, 3)
    for row in range(3):
        for column in range(8):
            cell = picture[step * row : step * row + side, step * column : step * column + side].permute(2, 0, 1)
            times = side // views[row].shape[-1]
            assert torch.equal(cell, pixels[row][column].repeat_interleave(times, 1).repeat_interleave(times, 2))
    assert (picture[side:step] == 255).all()
    assert (picture[:, side:step] == 255).all()


def test_large_views_keep_their_size() -> None:
    views = [torch.zeros(1, 3, 160, 200, dtype=torch.uint8), torch.zeros(1, 3, 80, 100, dtype=torch.uint8)]
    assert mosaic(views, torch.zeros(3), torch.ones(3)).shape == (322, 200, 3)


def test_saved_once_and_not_after_a_resume(tmp_path: Path) -> None:
    fit(ToyMethod(), tmp_path, [ViewMosaic(tmp_path, rows=4), StopAfter(1), Checkpoint(tmp_path)], max_epochs=2)
    picture = pil_to_tensor(Image.open(tmp_path / "views.png"))
    left, top = corner(["view 1", "view 2"])
    assert picture.shape == (3, top + 2 * 130 - 2 + MARGIN, left + 4 * 130 - 2 + MARGIN)  # 2 px enlarged 64 times
    assert (picture[:, :top, :] < 255).any()  # a title
    assert (picture[:, top:, :left] < 255).any()  # and what each row is
    (tmp_path / "views.png").unlink()
    fit(ToyMethod(), tmp_path, [ViewMosaic(tmp_path)], ckpt_path=tmp_path / "checkpoints/last.ckpt", max_epochs=2)
    assert not (tmp_path / "views.png").exists()


def test_words_stand_around_the_grid_and_leave_its_pixels_alone() -> None:
    grid = torch.randint(256, (2 * 130 - 2, 3 * 130 - 2, 3), dtype=torch.uint8)
    plain = captioned(grid, "A title", ["first", "second"], ["", "", ""])
    left, top = corner(["first", "second"])
    assert torch.equal(plain[top : top + len(grid), left : left + grid.shape[1]], grid)
    named = captioned(grid, "A title", ["first", "second"], ["cat", "", "a very long name of a class indeed"])
    changed = (named != plain).any(dim=2)
    assert changed[:top, left : left + 130].any()  # above the first column
    assert not changed[:top, left + 130 : left + 258].any()  # the second has no name
    assert not changed[top:].any()


def test_a_long_name_is_cut_to_its_cell() -> None:
    assert fitting("disc", 128) == "disc"
    cut = fitting("a very long name of a class indeed", 120)
    assert cut.endswith("…")
    assert font(14).getlength(cut) <= 120


def test_views_are_called_by_their_roles() -> None:
    assert role_names(("global", "global", "local", "local")) == ["view 1", "view 2", "local 1", "local 2"]
