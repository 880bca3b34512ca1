"""What `stage=doctor` sees in images: each fault that is planted, and none where there is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.core.finding import Finding
from ssl_lightning.modalities.image.checkup import Look, look, near_copies
from ssl_lightning.modalities.image.sources.folder import Folder
from ssl_lightning.modalities.image.sources.shapes import Shapes


def picture(seed: int, height: int = 60, width: int = 80) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, first, count in (("train", 0, 30), ("test", 100, 10)):
        (tmp_path / split).mkdir()
        for i in range(count):
            picture(first + i).save(tmp_path / split / f"{i:02d}.png")
    return tmp_path


def seen(folder: Path, **data: Any) -> list[Finding]:
    return look(Folder(root=folder, num_workers=0, **({"image_size": 48} | data)), 60.0)


def said(found: list[Finding], text: str) -> Finding:
    return next(line for line in found if text in line.says)


def test_nothing_is_wrong_with_good_images(folder: Path) -> None:
    found = seen(folder)
    assert {line.level for line in found} == {"ok"}
    assert "40 images looked at; shorter sides in pixels: all 60" in said(found, "looked at").says


def test_copies_are_named(folder: Path) -> None:
    (folder / "train" / "same.png").write_bytes((folder / "train" / "03.png").read_bytes())
    (folder / "test" / "leak.png").write_bytes((folder / "train" / "05.png").read_bytes())
    picture(7).resize((64, 48)).save(folder / "train" / "smaller.jpg", quality=90)
    picture(8).save(folder / "test" / "again.jpg", quality=85)
    found = seen(folder)
    leaks = [line for line in found if line.level == "bad"]
    assert [line.says for line in leaks] == [
        "1 case of the same file in training and evaluation: train/05.png = test/leak.png",
        "1 case of nearly the same image in training and evaluation: train/08.png = test/again.jpg",
    ]
    assert "2 exact copies of other images: train/03.png = train/same.png" in said(found, "exact").says
    near = said(found, "nearly the same: ").says
    assert near.startswith("2 pairs")
    assert "train/07.png ~ train/smaller.jpg" in near


def test_one_image_in_two_classes(tmp_path: Path) -> None:
    for i in range(24):
        path = tmp_path / ("shorts", "skirt")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        picture(i).save(path)
    (tmp_path / "skirt" / "wrong.png").write_bytes((tmp_path / "shorts" / "02.png").read_bytes())
    line = said(seen(tmp_path), "in two classes")
    assert line.says == "1 case of one image in two classes: shorts/02.png (shorts) = skirt/wrong.png (skirt)"


def test_broken_files_are_named(folder: Path) -> None:
    whole = (folder / "train" / "04.png").read_bytes()
    (folder / "train" / "cut.png").write_bytes(whole[: len(whole) // 2])
    line = said(seen(folder), "cannot be decoded")
    assert (line.level, line.says) == ("watch", "1 file that cannot be decoded: train/cut.png")
    jpeg = folder / "train" / "whole.jpg"
    picture(900, 64, 90).save(jpeg)  # of another size: the files are read one by one
    (folder / "train" / "half.jpg").write_bytes(jpeg.read_bytes()[:600])
    line = said(look(Folder(root=folder, image_size=48, num_workers=0), 60.0), "cannot be decoded")
    assert (line.level, line.says) == ("bad", "2 files that cannot be decoded: train/cut.png, train/half.jpg")


def test_mixed_modes_and_sizes(folder: Path) -> None:
    for i in range(8):
        picture(200 + i, 30, 100).convert("L").save(folder / "train" / f"grey{i}.png")
    found = seen(folder)
    assert said(found, "stored in several ways").says == "stored in several ways: RGB 40, grey 8"
    assert "data.channels=1" in said(found, "stored in several ways").fix
    assert said(found, "smaller than data.image_size=48").level == "watch"
    assert said(found, "more than twice as long as wide").level == "watch"
    deep = np.full((60, 80), 40_000, np.uint16)
    Image.fromarray(deep).save(folder / "train" / "deep.png")
    assert "more than 8 bits 1" in said(seen(folder), "stored in several ways").says


def test_plain_surfaces_are_no_copies(folder: Path) -> None:
    for i in range(6):
        Image.new("RGB", (60, 60), (10 + i, 10, 10)).save(folder / "train" / f"plain{i}.png")
    assert {line.level for line in seen(folder)} == {"ok"}


def test_images_in_memory() -> None:
    found = look(Shapes(size=60, test_size=20), 60.0)
    assert {line.level for line in found} == {"ok"}
    assert "80 images looked at; shorter sides in pixels: all 32" in found[0].says


def test_time_is_kept(folder: Path) -> None:
    found = look(Folder(root=folder, num_workers=0, image_size=48), -1.0)
    assert found == [Finding("data", "bad", "no image can be decoded", "look at the files")]


def test_each_pair_within_three_bits_is_found() -> None:
    """As a naive loop over all pairs does."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(0, 256, (12, 16, 16, 3), generator=generator).float()
    smooth = torch.nn.functional.avg_pool2d(base.permute(0, 3, 1, 2), 5, 1, 2).permute(0, 2, 3, 1)
    noise = torch.randn(12, 16, 16, 3, generator=generator)
    looks = [Look(str(i), "train", (16, 16), "RGB", b"", x.numpy()) for i, x in enumerate([*smooth, *(smooth + noise)])]
    naive = {
        (one.name, other.name)
        for i, one in enumerate(looks)
        for other in looks[i + 1 :]
        if (one.hash ^ other.hash).bit_count() <= 3 and np.abs(one.thumbnail - other.thumbnail).mean() <= 4
    }
    assert {(one.name, other.name) for one, other in near_copies(looks)} == naive
    assert len(naive) >= 8
