"""A part that asks the data for what they do not have: the line names the options that go with these data."""

from pathlib import Path

import pytest

from ssl_lightning.cli import fitting
from ssl_lightning.cli.run import compose
from ssl_lightning.core.errors import UserError


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "backbone=timm data=tones",
            "backbone=timm asks for data.image_size, which data=tones does not have; choose another backbone= "
            "(mel_convnet, vit_mel, timm_mel), or other data",
        ),
        (
            "data=audio_wave data.root=x backbone=vit_tiny",
            "backbone=vit_tiny asks for data.image_size, which data=audio_wave does not have; choose another backbone= "
            "(wave_convnet, transformer1d), or other data",
        ),
        (
            "data=tones data.representation=wave backbone=vit_tiny",
            "backbone=vit_tiny asks for data.image_size, which data=tones does not have; choose another backbone= "
            "(wave_convnet), or other data",
        ),
        (  # more than eight: none is named
            "data=shapes views=audio",
            "views=audio asks for data.length, which data=shapes does not have; choose another views=, or other data",
        ),
    ],
)
def test_the_line_names_what_goes_with_the_data(words: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        compose(words.split())
    assert str(caught.value) == line


def test_data_of_a_folder_that_is_not_given_are_asked_for(tmp_path: Path) -> None:
    """A run on data of one's own, evaluated without `--config-dir`: what lacks is the folder, not the views."""
    error = Exception("Interpolation key 'data.image_size' not found\n    full_key: views.global_1.size")
    choices = {"data": "points", "views": "sym"}
    said = "there is no data=points here, which the run was made with; give its folder: --config-dir DIR"
    assert fitting.lacking(error, choices, {"size": 64}, None) == said
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "points.yaml").write_text("size: 64")
    assert fitting.lacking(error, choices, {"size": 64}, tmp_path).startswith("views=sym asks for data.image_size, ")
    assert fitting.lacking(Exception("another"), choices, {}, None) == ""


@pytest.mark.parametrize("option", ["mel_convnet", "vit_mel", "timm_mel", "wave_convnet"])
def test_what_is_named_composes(option: str) -> None:
    assert compose(["data=tones", f"backbone={option}"]).choices["backbone"] == option


def test_a_folder_of_ones_own_is_read_and_what_a_yaml_is_built_on(tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "mine.yaml").write_text("noise: ${data.length}")
    (tmp_path / "views" / "child.yaml").write_text("defaults: [mine, _self_]\nnoise: 1")
    (tmp_path / "views" / "photos.yaml").write_text("defaults: [sym, _self_]")
    (tmp_path / "views" / "round.yaml").write_text("defaults: [round, _self_]")  # Hydra refuses it; this only ends
    (tmp_path / "views" / "broken.yaml").write_text("a: [")
    found = fitting.fitting("views", "tones", {"length": 7680}, tmp_path)
    assert found[:3] == ["audio_one", "audio", "audio_local"]  # as conf/data/tones.yaml picks them
    assert {"mine", "child"} <= set(found)
    assert not {"photos", "sym", "dino", "dinov2"} & set(found)
