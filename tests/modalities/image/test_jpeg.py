"""JPEG files by torchvision's decoder: PIL's pixels to the bit, and PIL's word on what is broken."""

import random
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_lightning.modalities.image import jpeg
from ssl_lightning.modalities.image.images import BROKEN, decode, opened


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **how: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def both(path: Path) -> tuple[Tensor | None, Tensor]:
    """(torchvision's pixels or None, PIL's)."""
    with opened(str(path)) as image:
        quick = jpeg.decode_jpeg(image)
    with opened(str(path)) as image:
        return quick, torch.from_numpy(np.array(image.convert("RGB")))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", [0, 1, 2])  # 4:4:4, 4:2:2, 4:2:0
def test_the_pixels_are_pils(tmp_path: Path, sampling: int, progressive: bool) -> None:
    for height, width, quality in ((1, 1, 75), (7, 13, 30), (64, 48, 95), (121, 250, 85)):
        for mode in ("RGB", "L"):
            image = picture(height, width, quality).convert(mode)
            (tmp_path / "x.jpg").write_bytes(
                encoded(image, quality=quality, subsampling=sampling, progressive=progressive)
            )
            quick, theirs = both(tmp_path / "x.jpg")
            assert quick is not None
            assert quick.is_contiguous()
            assert torch.equal(quick, theirs)
            assert torch.equal(decode(str(tmp_path / "x.jpg")), theirs)


def test_orientation_restart_markers_rgb_and_several_pictures(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "turned": encoded(picture(40, 50), exif=exif),
        "restarts": encoded(picture(40, 50), restart_marker_blocks=2),
        "rgb": encoded(picture(40, 50), keep_rgb=True),
        "mpo": encoded(picture(40, 50), "MPO", save_all=True, append_images=[picture(40, 50, 1)]),
    }
    for data in files.values():
        (tmp_path / "x.jpg").write_bytes(data)
        quick, theirs = both(tmp_path / "x.jpg")
        assert quick is not None
        assert torch.equal(quick, theirs)


def test_what_is_left_to_pil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = encoded(picture(30, 20))
    cmyk = encoded(picture(30, 20).convert("CMYK"))
    for data in (cmyk, encoded(picture(30, 20), "PNG")):
        (tmp_path / "x").write_bytes(data)
        quick, theirs = both(tmp_path / "x")
        assert quick is None
        assert torch.equal(decode(str(tmp_path / "x")), theirs)
    (tmp_path / "x").write_bytes(plain)
    theirs = both(tmp_path / "x")[1]
    monkeypatch.setattr(jpeg, "LARGEST", len(plain) - 1)
    assert both(tmp_path / "x")[0] is None
    assert torch.equal(decode(str(tmp_path / "x")), theirs)


def test_another_decoder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one level differs in one sampling, all pixels are PIL's."""
    (tmp_path / "x.jpg").write_bytes(encoded(picture(30, 20)))
    theirs, right = both(tmp_path / "x.jpg")[1], jpeg._by_torchvision
    assert jpeg.same_as_pil()

    def other(data: bytes) -> Tensor | None:
        pixels = right(data)
        assert pixels is not None
        pixels[0, 0, 0] += 1
        return pixels

    jpeg.same_as_pil.cache_clear()
    try:
        monkeypatch.setattr(jpeg, "_by_torchvision", other)
        assert not jpeg.same_as_pil()
        assert torch.equal(decode(str(tmp_path / "x.jpg")), theirs)
        jpeg.same_as_pil.cache_clear()
        monkeypatch.setattr(jpeg, "_by_torchvision", lambda data: None)  # a torchvision without libjpeg
        assert not jpeg.same_as_pil()
        assert torch.equal(decode(str(tmp_path / "x.jpg")), theirs)
    finally:
        jpeg.same_as_pil.cache_clear()


def test_damaged_files_fare_as_with_pil(tmp_path: Path) -> None:
    """Cut, lengthened or with bytes changed: refused by both, or the same pixels."""
    rng, path, refused = random.Random(0), tmp_path / "x.jpg", 0
    sources = [encoded(picture(50, 60, i), quality=80, subsampling=i, progressive=i == 1) for i in range(3)]
    for _ in range(150):
        data = bytearray(rng.choice(sources))
        if rng.random() < 0.2:
            del data[rng.randrange(2, len(data)) :]
        elif rng.random() < 0.2:
            data += bytes(rng.randrange(256) for _ in range(20))
        else:
            for _ in range(rng.choice([1, 1, 3])):
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            with opened(str(path)) as image:
                theirs = torch.from_numpy(np.array(image.convert("RGB")))
        except BROKEN:
            refused += 1
            with pytest.raises(BROKEN):
                decode(str(path))
        else:
            assert torch.equal(decode(str(path)), theirs)
    assert 20 < refused < 130
