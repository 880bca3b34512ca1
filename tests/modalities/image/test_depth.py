"""Depth and channels: what is deeper than 8 bits is scaled by the range in use, whatever file it comes from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.modalities.image import depth, pixels
from ssl_lightning.modalities.image.depth import range_in_use, to_bytes, turned, with_channels
from ssl_lightning.modalities.image.images import BROKEN, decode
from tests.data.deep import ramp, write_png, write_tiff

NOISE = np.random.default_rng(0)
BANDS = NOISE.integers(0, 4096, (6, 7, 13)).astype(np.uint16)


@pytest.mark.parametrize(
    ("low", "high", "whole", "wanted"),
    [
        (0, 255, True, (0, 255)),
        (3, 3794, True, (0, 4095)),  # 12 bits
        (0, 64764, True, (0, 65535)),
        (1000, 1300, True, (1000, 1300)),  # a narrow part of 11 bits
        (-1024, 3071, True, (-1024, 3071)),  # CT
        (7, 7, True, (0, 255)),
        (0.0, 0.98, False, (0, 1)),
        (-0.9, 1.0, False, (-1, 1)),
        (0.0, 254.5, False, (0, 255)),
        (0.4, 0.6, False, (0.4, 0.6)),
        (-1024.0, 3071.0, False, (-1024, 3071)),
        (1e6, 1e6, False, (1e6, 1e6 + 1)),
    ],
)
def test_the_range_in_use(low: float, high: float, whole: bool, wanted: tuple[float, float]) -> None:
    assert range_in_use(low, high, whole) == wanted


def files(folder: Path) -> dict[str, int]:
    """Files of one grey ramp in many forms -> how many of 256 grey levels must be left."""
    deep = ramp().astype(np.uint16)
    colours = np.stack([deep, deep[::-1], deep.T], -1)
    Image.fromarray(deep).save(folder / "12 bits.png")
    Image.fromarray((deep // 16).astype(np.uint16)).save(folder / "8 bits.png")
    Image.fromarray(deep).save(folder / "lzw.tif", compression="tiff_lzw")
    Image.fromarray((ramp() - 1024).astype(np.float32)).save(folder / "ct.tif")
    Image.fromarray((ramp() - 1024).astype(np.int32)).save(folder / "ct32.tif")
    for value in (np.nan, np.inf, -np.inf):
        odd = (ramp() / 4095).astype(np.float32)
        odd[3, 3] = value
        Image.fromarray(odd).save(folder / f"{value}.tif")
    write_png(folder / "colours.png", colours)
    write_png(folder / "with alpha.png", np.concatenate([colours, np.full_like(deep, 65535)[..., None]], -1))
    write_png(folder / "grey alpha.png", np.stack([deep, np.full_like(deep, 65535)], -1))
    write_tiff(folder / "colours.tif", colours)
    (folder / "colours.ppm").write_bytes(b"P6 32 32 65535\n" + colours.astype(">u2").tobytes())
    (folder / "grey.pgm").write_bytes(b"P5 32 32 4095\n" + deep.astype(">u2").tobytes())
    np.save(folder / "array.npy", deep)
    np.save(folder / "float.npy", colours / 4095.0)
    return dict.fromkeys((path.name for path in folder.iterdir()), 256) | {"8 bits.png": 256}


def test_no_file_loses_its_grey_levels(tmp_path: Path) -> None:
    for name, levels in files(tmp_path).items():
        got = decode(str(tmp_path / name))
        assert got.shape == (32, 32, 3), name
        assert got.dtype == torch.uint8
        assert len(got.unique()) >= levels - 1, name
        assert int(got.max()) == 255, name
        assert pixels.is_deep(str(tmp_path / name)), name


def test_a_stated_range_is_the_same_for_all(tmp_path: Path) -> None:
    Image.fromarray((ramp() - 1024).astype(np.float32)).save(tmp_path / "ct.tif")
    got = decode(str(tmp_path / "ct.tif"), value_range=(-1024, 3071))
    wanted = np.rint((ramp().astype(np.float32)) * 255 / 4095)
    assert (got[..., 0] - torch.from_numpy(wanted)).abs().max() <= 1
    window = decode(str(tmp_path / "ct.tif"), value_range=(-160, 240))[..., 0].numpy()
    assert (window[ramp() < 864] == 0).all()
    assert (window[ramp() > 1264] == 255).all()
    Image.fromarray(np.full((4, 4), 60, np.uint8)).save(tmp_path / "x.png")
    assert decode(str(tmp_path / "x.png"), value_range=(0, 120)).unique().tolist() == [128]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("form", [{}, {"packed": True}, {"apart": True, "packed": True}, {"differences": True}])
def test_a_tiff_of_many_bands(tmp_path: Path, order: str, form: dict[str, bool]) -> None:
    write_tiff(tmp_path / "x.tif", BANDS, order, **form)
    assert np.array_equal(pixels.values(str(tmp_path / "x.tif"), 13), BANDS)
    assert decode(str(tmp_path / "x.tif"), 13).shape == (6, 7, 13)


def test_numbers_that_pil_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    for kind in (np.float16, np.uint32, np.uint64):
        write_tiff(path, ramp(1023).astype(kind)[..., None])
        assert len(decode(str(path)).unique()) == 256
    path.write_bytes(b"II*\0" + bytes(40))
    with pytest.raises(BROKEN):
        decode(str(path))


def test_floats_bands_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    values = NOISE.normal(size=(6, 7, 5)).astype(np.float32)
    write_tiff(path, values)
    assert np.array_equal(pixels.values(str(path), 5), values)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 40])
    with pytest.raises(BROKEN):
        decode(str(path), 5)
    write_tiff(path, values, packed=True)
    path.write_bytes(path.read_bytes().replace(b"\x78\x9c", b"\0\0"))
    with pytest.raises(BROKEN):
        decode(str(path), 5)


def test_other_channels_are_told_and_never_left_out(tmp_path: Path) -> None:
    write_tiff(tmp_path / "5.tif", (BANDS[..., :5] // 16).astype(np.uint8))
    with pytest.raises(OSError, match=r"5 channels and data\.channels is 3; set data\.channels=5"):
        decode(str(tmp_path / "5.tif"))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(OSError, match="3 channels"):
        decode(str(tmp_path / "rgb.png"), 5)
    assert decode(str(tmp_path / "rgb.png"), 1).shape == (4, 4, 1)
    Image.fromarray(np.full((4, 4, 4), (10, 20, 30, 40), np.uint8)).save(tmp_path / "rgba.png")
    assert decode(str(tmp_path / "rgba.png"), 4)[0, 0].tolist() == [10, 20, 30, 40]
    assert decode(str(tmp_path / "rgba.png"), 3)[0, 0].tolist() == [10, 20, 30]
    np.save(tmp_path / "first.npy", np.zeros((5, 8, 9), np.uint8))
    assert decode(str(tmp_path / "first.npy"), 5).shape == (8, 9, 5)


def test_colours_become_pil_s_grey(tmp_path: Path) -> None:
    noise = NOISE.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    wanted = np.array(Image.fromarray(noise).convert("L")).astype(int)
    assert np.abs(with_channels(noise, 1)[..., 0].astype(int) - wanted).max() <= 1
    with pytest.raises(depth.WrongChannels):
        with_channels(noise, 2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_turns_an_image(tmp_path: Path, orientation: int, suffix: str) -> None:
    from PIL import ImageOps

    image = Image.fromarray(np.kron(np.arange(6).reshape(2, 3) * 40, np.ones((8, 8))).astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    image.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as saved:
        wanted = np.array(ImageOps.exif_transpose(saved).convert("RGB"))
    assert torch.equal(decode(str(path)), torch.from_numpy(wanted))
    assert np.array_equal(turned(np.array(image), orientation)[0, 0], wanted[0, 0]) or suffix == "jpg"


def test_first_pictures_of_moving_ones(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "webp", "png", "tif"):
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
        assert decode(str(tmp_path / f"x.{suffix}"))[0, 0].tolist() == [255, 0, 0], suffix


def test_a_range_that_is_not_of_bytes_leaves_bytes_alone() -> None:
    dim = np.array([0, 60, 120], np.uint8)
    assert to_bytes(dim, (0, 120)).tolist() == [0, 128, 255]
    for other in ((0, 4095), (0, 1), (-1024, 3071)):
        assert to_bytes(dim, other) is dim


def test_bytes_stay_as_they_are_and_empty_values_do_not_fail() -> None:
    same = np.arange(256, dtype=np.uint8)
    assert to_bytes(same) is same
    assert to_bytes(np.full((2, 2), np.nan)).tolist() == [[0, 0], [0, 0]]
    assert to_bytes(np.array([True, False])).tolist() == [255, 0]
    assert to_bytes(np.array([5, 5], np.uint16)).tolist() == [5, 5]
