"""Decoding of every image mode to RGB, and the two kinds of image sets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.images import BROKEN, ArrayImages, FileImages, decode

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4  # 0, 4, ..., 252


def save(folder: Path, image: Image.Image, name: str = "x.png") -> str:
    image.save(folder / name)
    return str(folder / name)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1"])
def test_eight_bit_modes_keep_their_values(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(RAMP)
    wanted = np.where(RAMP > 127, 255, 0) if mode == "1" else RAMP
    image = grey.convert(mode, dither=Image.Dither.NONE)
    got = decode(save(tmp_path, image))
    assert got.dtype == torch.uint8
    assert torch.equal(got, torch.from_numpy(wanted.astype(np.uint8))[..., None].expand(8, 8, 3))


def test_a_palette_is_looked_up_also_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    image.putpalette([255, 0, 0, 0, 0, 255])
    wanted = torch.tensor([[[255, 0, 0], [0, 0, 255]], [[0, 0, 255], [255, 0, 0]]], dtype=torch.uint8)
    assert torch.equal(decode(save(tmp_path, image)), wanted)
    image.save(tmp_path / "t.png", transparency=bytes([255, 0]))
    assert torch.equal(decode(str(tmp_path / "t.png")), wanted)


def test_cmyk_is_inverted_ink(tmp_path: Path) -> None:
    cyan = np.zeros((8, 8, 4), np.uint8)
    cyan[..., 0] = 255
    got = decode(save(tmp_path, Image.fromarray(cyan, mode="CMYK"), "x.tif"))
    assert got[0, 0].tolist() == [0, 255, 255]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 257  # 257 = 65535 / 255
    for name in ("x.png", "x.tif"):
        got = decode(save(tmp_path, Image.fromarray(deep), name))
        assert torch.equal(got[..., 1], torch.from_numpy(RAMP))


def test_floats_from_zero_to_one_are_scaled(tmp_path: Path) -> None:
    got = decode(save(tmp_path, Image.fromarray((RAMP / 255).astype(np.float32)), "x.tif"))
    assert torch.equal(got[..., 2], torch.from_numpy(RAMP))


def test_truncated_and_foreign_files_raise_what_is_caught(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = Path(save(tmp_path, Image.fromarray(noise), "whole.jpg")).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("this is not an image")
    (tmp_path / "empty.jpg").touch()
    for name in ("cut.jpg", "text.jpg", "empty.jpg"):
        with pytest.raises(BROKEN):
            decode(str(tmp_path / name))


def test_array_images_fetch_a_batch_like_single_images() -> None:
    pixels = torch.randint(0, 256, (10, 4, 5, 3), dtype=torch.uint8)
    images = ArrayImages(pixels, labels=np.arange(10) % 3)
    rows = torch.tensor([7, 0, 7])
    assert torch.equal(images.batch(rows), torch.stack([images[int(i)][0] for i in rows]))
    assert images[7][1:] == (1, 7)
    assert images.classes == ["0", "1", "2"]
    assert images.labelled
    part = images.subset(torch.tensor([5, 2]))
    assert part.labels.tolist() == [2, 2]
    assert torch.equal(part.image(1), pixels[2])


def test_without_labels_every_label_is_minus_one(tmp_path: Path) -> None:
    images = FileImages([save(tmp_path, Image.fromarray(RAMP))])
    assert images.labels.tolist() == [-1]
    assert images.classes == []
    assert not images.labelled
    assert images[0][0].shape == (8, 8, 3)


@pytest.mark.parametrize("bad", [torch.zeros(2, 4, 4, 3), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)])
def test_other_arrays_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"uint8 \(N, H, W, 3\)"):
        ArrayImages(bad)


def test_labels_must_match_the_images() -> None:
    with pytest.raises(UserError, match="2 images but 3 labels"):
        ArrayImages(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), [0, 1, 2])
