"""`.transform`, `.card` and `.embed` of a loaded backbone: what its evaluation view gives, bit by bit."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import ssl_lightning
from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.feeding import NoTransform, attach, transform_of
from ssl_lightning.modalities.image.sources.folder import Folder
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs.checkpoint import save_backbone

NODE = {"_target_": "ssl_lightning.models.convnet.ConvNetSmall", "width": 4}


def noise(height: int, width: int, channels: int = 3, seed: int = 0, deep: bool = False) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 4096 if deep else 256, (7, 7, channels))
    whole = coarse.repeat(-(-height // 7), 0).repeat(-(-width // 7), 1)[:height, :width]
    return whole.astype(np.uint16 if deep else np.uint8).squeeze()


def array(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def pictures(folder: Path) -> Path:
    """Of every kind that a folder may hold."""
    folder.mkdir()
    Image.fromarray(noise(60, 90)).save(folder / "rgb.png")
    Image.fromarray(noise(90, 40)).save(folder / "jpeg.jpg", quality=80)
    Image.fromarray(noise(50, 70, 1)).save(folder / "grey.png")
    Image.fromarray(noise(64, 64, 4)).save(folder / "rgba.png")
    Image.fromarray(noise(48, 72)).quantize(16).save(folder / "palette.gif")
    Image.fromarray(noise(40, 60)).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(40, 80)).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(noise(32, 32)).save(folder / "exact.png")
    Image.fromarray(noise(9, 200)).save(folder / "long.png")
    return folder


def evaluated(data: Folder) -> dict[str, Tensor]:
    """Each file's input by the data module's own path: {path: (C, H, W)}."""
    found = {}
    for split, part in (("train", data.train_set), ("test", data.test_set)):
        for batch in data.eval_loader(split):  # type: ignore[arg-type]
            found |= {part.paths[i]: x for i, x in zip(batch.indices.tolist(), batch.views[0], strict=True)}
    return found


def a_backbone(folder: Path, data: Folder | None = None, channels: int = 3, **card: Any) -> nn.Module:
    node = NODE | {"in_channels": channels}
    card = (data.card() if data is not None else {}) | {"method": "simclr", "data": "folder"} | card
    torch.manual_seed(3)
    save_backbone(ConvNetSmall(4, channels), node, folder, **card)
    return load_backbone(folder)


@pytest.mark.parametrize("size", [{"image_size": 32}, {"image_size": 32, "eval_resize": 41}, {"image_size": 96}])
def test_a_file_becomes_what_the_evaluation_view_gives(tmp_path: Path, size: dict[str, Any]) -> None:
    data = Folder(root=pictures(tmp_path / "photos"), mean=(0.4, 0.5, 0.3), std=(0.2, 0.3, 0.25), num_workers=0, **size)
    net = a_backbone(tmp_path / "run", data)
    wanted = evaluated(data)
    assert len(wanted) == 9
    for path, x in wanted.items():
        found = net.transform(path)
        assert found.dtype == torch.float32
        assert torch.equal(found, x), path
        with Image.open(path) as image:
            assert torch.equal(net.transform(image), x), path
    plain = tmp_path / "photos" / "rgb.png"
    pixels = array(plain)
    for same in (
        pixels,
        torch.from_numpy(pixels).permute(2, 0, 1),
        torch.from_numpy(pixels),
        pixels.transpose(2, 0, 1),
    ):
        assert torch.equal(net.transform(same), wanted[str(plain)])
    floats = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    assert torch.equal(net.transform(floats), wanted[str(plain)])
    assert torch.equal(
        net.transform(array(tmp_path / "photos" / "grey.png")), wanted[str(tmp_path / "photos" / "grey.png")]
    )


def test_dark_floats_are_not_stretched(tmp_path: Path) -> None:
    net = a_backbone(tmp_path / "run", image_size=8, mean=[0.0] * 3, std=[1.0] * 3)
    assert net.transform(torch.full((3, 8, 8), 0.2)).mean() == pytest.approx(51 / 255)
    assert net.transform(np.ones((8, 8), bool)).min() == 1


def test_deep_images_are_scaled_by_the_range_of_the_training(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(noise(40, 50, 1, seed=i, deep=True) // (i + 1)).save(folder / f"{i}.png")
    data = Folder(root=folder, image_size=24, channels=1, num_workers=0)
    wanted = evaluated(data)
    net = a_backbone(tmp_path / "run", data, channels=1)
    assert net.card["value_range"] == [0.0, 4095.0]
    for path, x in wanted.items():
        assert torch.equal(net.transform(path), x)
        assert torch.equal(net.transform(array(path)), x)
        with Image.open(path) as image:
            assert torch.equal(net.transform(image), x)


def test_many_channels(tmp_path: Path) -> None:
    folder = tmp_path / "bands"
    folder.mkdir()
    for i in range(4):
        np.save(folder / f"{i}.npy", noise(20, 30, 5, seed=i))
    data = Folder(root=folder, image_size=16, channels=5, num_workers=0, mean=[0.5] * 5, std=[0.25] * 5)
    wanted = evaluated(data)
    net = a_backbone(tmp_path / "run", data, channels=5)
    for path, x in wanted.items():
        assert torch.equal(net.transform(path), x)
        assert torch.equal(net.transform(np.load(path)), x)
        assert torch.equal(net.transform(torch.from_numpy(np.load(path)).permute(2, 0, 1)), x)
    with pytest.raises(UserError, match=r"it has 3 channels and the network takes 5"):
        net.transform(noise(20, 30))


def test_embed_takes_files_folders_and_pictures(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos")
    data = Folder(root=folder, image_size=32, num_workers=0)
    net = a_backbone(tmp_path / "run", data)
    wanted = evaluated(data)
    paths = sorted(wanted)
    with torch.no_grad():
        rows = net(torch.stack([wanted[path] for path in paths]))
    found = net.embed(folder, batch_size=2)
    assert (found.dtype, found.shape, found.requires_grad) == (torch.float32, (9, 16), False)
    for batch_size in (1, 4, 64):
        torch.testing.assert_close(net.embed(folder, batch_size=batch_size), rows, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net.embed(paths[2]), rows[2:3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net.embed([Path(p) for p in paths[::-1]]), rows.flip(0), rtol=1e-5, atol=1e-6)
    opened = [Image.fromarray(array(path)) for path in paths if path.endswith(".jpg")]
    assert net.embed(opened).shape == (3, 16)
    assert net.embed(array(folder / "rgb.png")).shape == (1, 16)
    assert net.embed(torch.zeros(3, 3, 40, 40)).shape == (3, 16)
    assert net.embed(folder, device="cpu").shape == (9, 16)
    half = net.double().embed(folder)
    torch.testing.assert_close(half, rows, rtol=1e-5, atol=1e-6)


def test_training_flags_stay(tmp_path: Path) -> None:
    net = a_backbone(tmp_path / "run", image_size=16).train()
    net.block.eval()
    net.embed(np.zeros((20, 20, 3), np.uint8))
    assert net.training
    assert not net.block.training


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    net = a_backbone(tmp_path / "run", image_size=16)
    for call in (net.transform, net.embed, lambda path: net.embed(folder)):
        with pytest.raises(UserError, match=r"broken\.jpg cannot be read as an image"):
            call(folder / "broken.jpg")
    with pytest.raises(UserError, match=r"absent\.jpg cannot be read"):
        net.embed([folder / "absent.jpg"])
    with pytest.raises(UserError, match=r"item 1: .* is not an image"):
        net.embed([np.zeros((8, 8)), np.zeros((2, 2, 2, 2))])
    with pytest.raises(UserError, match="nothing to embed"):
        net.embed([])
    with pytest.raises(UserError, match="batch_size=0"):
        net.embed(folder, batch_size=0)


def test_it_stays_a_plain_module(tmp_path: Path) -> None:
    net = a_backbone(tmp_path / "run", image_size=16)
    plain = ConvNetSmall(4)
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in net.named_modules()] == [name for name, _ in plain.named_modules()]
    assert str(net) == str(plain)
    picture = noise(20, 30)
    wanted = net.embed(picture)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    copies = (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), torch.load(file, weights_only=False), net.to("cpu"))
    for other in copies:
        assert torch.equal(other.embed(picture), wanted)
        assert other.embed.backbone is other
    copies[1].conv1[0].weight.data.zero_()
    assert not torch.equal(copies[1].embed(picture), wanted)  # of its own weights
    assert torch.equal(net.embed(picture), wanted)
    net.card["mean"] = None
    assert ssl_lightning.load_backbone(tmp_path / "run").card["method"] == "simclr"


def test_an_attribute_of_the_network_s_own_stays() -> None:
    class Own(ConvNetSmall):
        def embed(self, x: Tensor) -> Tensor:
            return x

    net = attach(Own(4), {"image_size": 16})
    assert net.embed(3) == 3
    assert net.transform(np.zeros((20, 20, 3), np.uint8)).shape == (3, 16, 16)


def test_a_card_that_does_not_say_how(tmp_path: Path) -> None:
    cards: list[tuple[dict[str, Any], str]] = [
        ({}, "does not say how"),
        ({"modality": "series"}, "'series' have no transform"),
        ({"image_size": 32, "eval_resize": 8}, r"does not say how .*eval_resize=8 is smaller"),
        ({"image_size": 32, "mean": [0.5]}, r"does not say how .*1 numbers for 3 channels"),
        ({"modality": "audio", "sample_rate": 8000, "length": 100, "representation": "wave", "mean": [0.1]}, "'std'"),
    ]
    for card, why in cards:
        net = attach(ConvNetSmall(4), card)
        assert isinstance(net.transform, NoTransform)
        for call in (net.transform, net.embed):
            with pytest.raises(UserError, match=why):
                call(tmp_path)


def test_timm_s_own_transform(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    folder = pictures(tmp_path / "photos")
    name = "resnet18.a1_in1k"
    node = {"_target_": "ssl_lightning.models.timm.timm_backbone", "name": name}
    transform = transform_of({"backbone": node, "method": f"timm:{name}"})
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    theirs = timm.data.create_transform(**config, is_training=False)
    image = Image.fromarray(array(folder / "rgb.png"))
    assert torch.equal(transform(folder / "rgb.png"), theirs(image))
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), theirs(image))


def test_torchvision_s_own_transform(tmp_path: Path) -> None:
    from torchvision import models

    node = {"_target_": "ssl_lightning.models.resnet.resnet", "name": "resnet18"}
    transform = transform_of({"backbone": node, "method": "torchvision:resnet18"})
    image = Image.fromarray(noise(300, 400))
    theirs = models.ResNet18_Weights.DEFAULT.transforms()(image)
    assert (transform(image) - theirs).abs().mean() < 0.02  # of values up to 2.6: its resizing is in other steps
