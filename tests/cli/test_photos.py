"""experiment=photos: chosen by the size of the data, said in a line each; the user's own words stand."""

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from ssl_lightning.cli import photos
from ssl_lightning.cli import run as build
from ssl_lightning.cli.compose import Config, compose
from ssl_lightning.cli.photos import Photos, choices


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """100 files of 150 x 200, of which a tenth is held out; on a machine with a GPU."""
    monkeypatch.setattr(photos, "gpu_here", lambda trainer: True)
    for i in range(100):
        Image.new("RGB", (200, 150), (i, i, i)).save(tmp_path / f"{i}.png")
    return tmp_path


def composed(folder: Path, *words: str) -> Config:
    config = compose(["experiment=photos", f"data.root={folder}", *words])
    build.check(config)
    return config


def test_it_is_composed_by_the_folder(folder: Path) -> None:
    config = composed(folder)
    assert photos.counted(str(folder)) == Photos(90, 150)
    kinds = {key: config.choices[key] for key in ("data", "method", "backbone", "optimizer")}
    assert kinds == {"data": "folder", "method": "simclr", "backbone": "resnet18", "optimizer": "adamw"}
    assert config.values["data"]["image_size"] == 128
    assert config.values["data"]["batch_size"] == 16
    assert config.values["trainer"]["max_epochs"] == 300
    assert config.overrides == ("experiment=photos", f"data.root={folder}")  # what was typed, and no more
    said = photos.lines(config.choices, config.values, config.overrides)
    assert said[0] == "90 photos to train on, shorter side 150 px or more, a GPU:"
    assert [line.split(":")[0].strip() for line in said[1:]] == [
        "backbone=resnet18", "method=simclr", "data.image_size=128", "data.batch_size=16", "trainer.max_epochs=300",
        "few to learn from",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["data.image_size=64"], "data.image_size", 64),
        (["trainer.max_epochs=3"], "trainer.max_epochs", 3),
        (["data.batch_size=8"], "data.batch_size", 8),
        (["backbone=vit_tiny"], "backbone._target_", "ssl_lightning.models.vit.ViT"),
        (["debug=fast"], "trainer.max_epochs", 1),
        (["method=byol"], "method._target_", "ssl_lightning.methods.byol.BYOL"),
        (["method=mae"], "backbone._target_", "ssl_lightning.models.vit.ViT"),  # which a mask needs
    ],
)
def test_the_user_s_words_stand(folder: Path, words: list[str], key: str, value: object) -> None:
    config = composed(folder, *words)
    group, name = key.split(".")
    assert config.values[group][name] == value
    said = photos.lines(config.choices, config.values, config.overrides)
    typed = {word.split("=")[0] for word in words}
    assert not any(line.strip().startswith(tuple(f"{key}=" for key in typed)) for line in said)


def test_without_a_folder_to_look_at_nothing_is_chosen(tmp_path: Path) -> None:
    assert photos.counted(str(tmp_path / "absent")) is None
    config = compose(["experiment=photos", f"data.root={tmp_path / 'absent'}"])
    assert config.values["trainer"]["max_epochs"] == 200
    assert photos.lines(config.choices, config.values, config.overrides) == []
    other = compose(["experiment=cifar10_cpu", "data=folder", "data.root=x"])
    assert photos.lines(other.choices, other.values, other.overrides) == []


@pytest.mark.parametrize(
    ("count", "side", "words"),
    [
        (1_200, 300, "backbone=resnet18 method=simclr data.image_size=128 data.batch_size=128 trainer.max_epochs=300"),
        (3_000, 40, "backbone=resnet18 backbone.stem=cifar method=simclr data.image_size=32 data.batch_size=128 "
                    "trainer.max_epochs=200"),
        (30_000, 500, "backbone=resnet18 method=moco data.image_size=224 data.batch_size=256 trainer.max_epochs=200 "
                      "views=sym"),
        (400_000, 256, "backbone=resnet50 method=moco data.image_size=224 data.batch_size=256 trainer.max_epochs=100 "
                       "views=sym"),
        (3, 20, "backbone=resnet18 backbone.stem=cifar method=simclr data.image_size=16 data.batch_size=2 "
                "trainer.max_epochs=300"),
    ],
)  # fmt: skip
def test_what_is_chosen(count: int, side: int, words: str) -> None:
    assert " ".join(choice.word for choice in choices(Photos(count, side))) == words
    assert all(choice.why for choice in choices(Photos(count, side)))


@pytest.mark.parametrize(
    ("count", "side", "words"),
    [
        (1_200, 300, "data.image_size=64 data.batch_size=128 trainer.max_epochs=300"),
        (9_000, 40, "data.image_size=32 data.batch_size=256 trainer.max_epochs=300 views=sym"),
        (30_000, 500, "data.image_size=64 data.batch_size=256 trainer.max_epochs=100 views=sym"),
        (400_000, 256, "data.image_size=64 data.batch_size=256 trainer.max_epochs=20 views=sym"),
    ],
)
def test_what_is_chosen_without_a_gpu(count: int, side: int, words: str) -> None:
    found = choices(Photos(count, side), gpu=False)
    assert " ".join(choice.word for choice in found) == f"backbone=convnet_small method=simclr {words}"
    assert found[0].why.startswith("no GPU")
    epochs = next(choice for choice in found if choice.key == "trainer.max_epochs")
    assert "on 4 CPU cores" in epochs.why
    if epochs.value > 20:  # hours, as it says
        size = next(choice.value for choice in found if choice.key == "data.image_size")
        assert epochs.value * count <= photos.HOURS * 3600 * photos.CORES * photos.PER_SECOND * (64 / size) ** 2


def test_the_device_that_is_asked_for_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for words, gpu in (
        (["trainer=cpu"], False), (["trainer.accelerator=cpu"], False), (["trainer=ddp_cpu"], False),
        (["trainer=gpu"], True), (["trainer.accelerator=cuda"], True),
    ):  # fmt: skip
        config = compose(["experiment=photos", f"data.root={folder}", *words])
        assert config.choices["backbone"] == ("resnet18" if gpu else "convnet_small")
        assert config.values["data"]["image_size"] == (128 if gpu else 64)
        said = photos.lines(config.choices, config.values, config.overrides)
        assert said[0].endswith(", a GPU:" if gpu else ", no GPU:")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert photos.gpu_here({})
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert not photos.gpu_here({"trainer.max_epochs": 3})


@pytest.mark.parametrize("named", [True, False])
def test_a_run_goes_on_as_it_was_begun(named: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun without a GPU, its command means the same on a machine with one; a new run is for that machine."""
    words = [f"runs_dir={folder.parent / 'runs'}", *(["name=mine"] if named else [])]
    monkeypatch.setattr(photos, "gpu_here", lambda trainer: False)
    begun = composed(folder, *words)
    begun.path.mkdir(parents=True)
    (begun.path / "config.yaml").write_text(yaml.safe_dump(begun.stored))
    monkeypatch.setattr(photos, "gpu_here", lambda trainer: True)
    again = composed(folder, *words)
    assert again.stored == begun.stored
    said = photos.lines(again.choices, again.values, again.overrides)
    assert said[0].startswith("as this run was begun, without a GPU: 90 photos")
    assert composed(folder, *words, "resume=never").choices["backbone"] == "resnet18"
    assert composed(folder, words[0], "name=other").choices["backbone"] == "resnet18"


def test_a_train_folder_is_counted_alone(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("test", 3)):
        for i in range(count):
            path = tmp_path / split / "a" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 70)).save(path)
    assert photos.counted(str(tmp_path)) == Photos(6, 40)
