"""experiment=photos: chosen by the size of the data, said in a line each; the user's own words stand."""

from pathlib import Path

import pytest
from PIL import Image

from ssl_lightning.cli import photos
from ssl_lightning.cli import run as build
from ssl_lightning.cli.compose import Config, compose
from ssl_lightning.cli.photos import Photos, choices


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """100 files of 150 x 200, of which a tenth is held out."""
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
    assert said[0] == "90 photos to train on, shorter side 150 px or more:"
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


def test_a_train_folder_is_counted_alone(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("test", 3)):
        for i in range(count):
            path = tmp_path / split / "a" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 70)).save(path)
    assert photos.counted(str(tmp_path)) == Photos(6, 40)
