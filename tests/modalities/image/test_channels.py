"""Images of one channel, or of more than three, from the file to the pictures and the card."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ssl_lightning import load_backbone
from ssl_lightning.callbacks.view_mosaic import mosaic
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.data import DataModule
from ssl_lightning.modalities.image.sources.array import Array
from ssl_lightning.modalities.image.sources.folder import Folder
from ssl_lightning.modalities.image.views import View, Views
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.decoder import MAEDecoder
from ssl_lightning.models.resnet import resnet
from ssl_lightning.models.vit import ViT
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.stages.common import check_batch
from ssl_lightning.stages.judging import judge_backbone
from ssl_lightning.stages.linear import Pixels
from tests.data.deep import ramp, write_tiff

RNG = np.random.default_rng(0)
VIEWS = Views(View(size=8, count=2, blur_p=0.5, solarize_p=0.3, jitter_p=1.0, grayscale_p=0.5))
LOADING: dict[str, Any] = {"views": VIEWS, "batch_size": 6, "image_size": 8, "num_workers": 0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def bands(folder: Path, channels: int) -> None:
    for i in range(12):
        pixels = (RNG.integers(0, 3000, (9, 10, channels)) + 300 * (i % 2)).astype(np.uint16)
        path = folder / f"{'ab'[i % 2]}/{i}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tiff(path, pixels)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_views_are_the_same_in_both_engines(tmp_path: Path, channels: int) -> None:
    bands(tmp_path / "r", channels)
    found = []
    for engine in ("device", "worker"):
        data = Folder(tmp_path / "r", channels=channels, engine=engine, test_fraction=0.2, **LOADING)
        batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
        assert [view.shape for view in batch.views] == [(6, channels, 8, 8)] * 2
        assert data.value_range == (0, 4095)
        found.append(batch.views)
    for device, worker in zip(*found, strict=True):
        torch.testing.assert_close(device, worker, atol=2.5 / 255 / 0.22, rtol=0)


def test_five_channels_are_judged_pictured_and_loaded_again(tmp_path: Path) -> None:
    bands(tmp_path / "r", 5)
    data = Folder(tmp_path / "r", channels=5, test_fraction=0.4, **LOADING)
    net = ConvNetSmall(4, in_channels=5)
    data.check_network(net)
    found = judge_backbone(net.eval(), ConvNetSmall(4, in_channels=5), data, torch.device("cpu"))
    assert found["linear_top1"] is not None
    assert data.raw_pixels("test").shape[1] == 5 * 8 * 8
    assert Pixels(8, 5)(torch.zeros(2, 5, 8, 8)).shape == (2, Pixels(8, 5).out_dim)
    batch = next(iter(data.eval_loader("test")))
    picture = mosaic(batch.views, torch.tensor(data.mean), torch.tensor(data.std))
    assert picture.shape[2] == 3
    card = data.card()
    assert card["channels"] == 5
    assert card["value_range"] == [0, 4095]
    assert card["mean"] == [pytest.approx(0.449)] * 5
    node = {"_target_": "ssl_lightning.models.convnet.ConvNetSmall", "width": 4, "in_channels": 5}
    save_backbone(net, node, tmp_path, method="x", data="folder", **card)
    again = load_backbone(tmp_path)
    assert torch.equal(again(batch.views[0]), net(batch.views[0]))


def test_every_encoder_takes_other_channels() -> None:
    x = torch.zeros(2, 5, 16, 16)
    vit = ViT(16, 8, dim=16, depth=1, heads=2, in_channels=5)
    for net in (vit, resnet("resnet18", "cifar", in_channels=5), resnet("resnet18", in_channels=5)):
        assert net.eval()(x).shape == (2, net.out_dim)
    assert MAEDecoder(vit, 16, 1, 2).pixels.out_features == 8 * 8 * 5


def test_networks_and_numbers_that_do_not_fit_are_one_line() -> None:
    data = DataModule(channels=1, image_size=8)
    assert data.mean == (pytest.approx(0.449),)
    with pytest.raises(UserError, match=r"takes images of 3 channels, and the data has 1; set data\.channels=3"):
        data.check_network(ConvNetSmall(4))
    with pytest.raises(UserError, match=r"data\.mean=\[0\.5, 0\.5\] has 2 numbers for 3 channels"):
        DataModule(mean=[0.5, 0.5])
    with pytest.raises(UserError, match=r"data\.mean=\[0\.5, 0\.5, 0\.5\] has 3 numbers for 1 channels"):
        DataModule(mean=[0.5] * 3, channels=1)
    with pytest.raises(UserError, match="has a number that is not above 0"):
        DataModule(std=[0.2, 0.0, 0.2])
    with pytest.raises(UserError, match=r"data\.channels=0"):
        DataModule(channels=0)
    with pytest.raises(UserError, match="a batch of 1 image"):
        check_batch(nn.BatchNorm1d(3), DataModule(batch_size=1))
    check_batch(nn.BatchNorm2d(3), DataModule(batch_size=1))


def test_wrong_channels_are_told_before_training(tmp_path: Path) -> None:
    bands(tmp_path / "r", 5)
    with pytest.raises(UserError, match=r"\.tif: it has 5 channels and data\.channels is 3; set data\.channels=5"):
        _ = Folder(tmp_path / "r").train_set


def test_mosaics_of_one_and_two_channels() -> None:
    for channels in (1, 2):
        view = torch.rand(2, channels, 8, 8)
        picture = mosaic([view], torch.zeros(channels), torch.ones(channels), gap=0)
        assert picture.shape == (128, 256, 3)  # each pixel 16 times as large
        beside = torch.cat(list(view[:, 0]), dim=1)  # (8, 16)
        assert torch.equal(picture[::16, ::16, 0], (beside * 255).round().to(torch.uint8))


def test_training_and_evaluation_share_one_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, top in (("train", 2000), ("test", 4095)):
        for name in "ab":
            (tmp_path / "r" / part / name).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(ramp(top).astype(np.uint16)).save(tmp_path / f"r/{part}/{name}/{i}.png")
    data = Folder(tmp_path / "r")
    assert int(data.train_set.image(0).max()) == round(2000 * 255 / 4095)
    assert int(data.test_set.image(0).max()) == 255
    assert "data.value_range=[0,4095]" in capsys.readouterr().err
    stated = Folder(tmp_path / "r", value_range=[0, 2000])
    assert int(stated.train_set.image(0).max()) == 255  # not what was kept of the other range
    with pytest.raises(UserError, match=r"data\.value_range=\[5, 5\] is not a range"):
        Folder(tmp_path / "r", value_range=[5, 5])


@pytest.mark.parametrize("form", ["NHWC", "NCHW", "npy"])
@pytest.mark.parametrize("kind", ["uint16", "float32", "int16", "nan"])
def test_arrays_of_any_depth(tmp_path: Path, form: str, kind: str) -> None:
    values = RNG.integers(0, 3900, (20, 6, 7, 5)).astype("float32" if kind == "nan" else kind)
    if kind == "nan":
        values[0, 0, 0] = np.nan
    shaped = values.transpose(0, 3, 1, 2) if form == "NCHW" else values
    if form == "npy":
        np.save(tmp_path / "x.npy", shaped)
    else:
        np.savez(tmp_path / "x.npz", train_images=shaped[:15], val_images=shaped[15:])
    data = Array(tmp_path / ("x.npy" if form == "npy" else "x.npz"), channels=5, **LOADING)
    images = torch.stack([data.train_set.image(i) for i in range(3)])
    assert images.shape == (3, 6, 7, 5)
    assert len(images.unique()) > 200
    assert int(images.max()) > 240
    assert data.value_range is not None
    assert len(next(iter(data.train_dataloader())).labels) == 6


def test_arrays_with_several_labels_or_some(tmp_path: Path) -> None:
    pixels, several = RNG.integers(0, 256, (20, 6, 6), dtype=np.uint8), RNG.integers(0, 2, (20, 4))
    np.savez(tmp_path / "x.npz", images=pixels, labels=several)
    data = Array(tmp_path / "x.npz")
    assert not data.has_labels
    assert data.train_set.targets is not None
    assert data.train_set.targets.shape == (18, 4)
    np.savez(tmp_path / "y.npz", images=pixels, labels=np.where(np.arange(20) < 10, np.arange(20) % 2, -1))
    data = Array(tmp_path / "y.npz")
    assert data.has_labels
    assert (len(data.train_set), len(data.probe_set), len(data.test_set)) == (17, 8, 2)
