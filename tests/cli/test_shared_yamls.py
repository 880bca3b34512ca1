"""`data/_loader` and the yamls built on it: what every data module takes stands once, and is no option itself."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_lightning.cli import help
from ssl_lightning.cli.run import check, compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.base import DataModule
from ssl_lightning.modalities.audio.data import AudioDataModule
from ssl_lightning.modalities.image.hooks import ImageDataModule

DATA = help.conf_dir() / "data"
SHARED = {"_loader": DataModule, "_images": ImageDataModule, "_sound": AudioDataModule}
OF_THE_YAML = ("defaults", "_target_", "views", "seed")  # not a constructor's default


def read(file: Path) -> dict[str, Any]:
    found = yaml.safe_load(file.read_text())
    return dict(found)


@pytest.mark.parametrize("name", SHARED)
def test_they_say_the_constructors_defaults(name: str) -> None:
    """What is shown there is what an own data yaml without them gets."""
    params = inspect.signature(SHARED[name]).parameters
    said = {key: value for key, value in read(DATA / f"{name}.yaml").items() if key not in OF_THE_YAML}
    assert len(said) >= 5
    for key, value in said.items():
        default = params[key].default
        assert (list(default) if isinstance(default, tuple) else default) == value, key


def test_no_data_yaml_repeats_what_stands_there() -> None:
    shared = {key: value for name in SHARED for key, value in read(DATA / f"{name}.yaml").items()}
    for file in DATA.glob("[!_]*.yaml"):
        node = read(file)
        own = node.get("data", node)
        repeated = {key for key, value in own.items() if key in shared and shared[key] == value}
        assert repeated <= {"defaults"}, file


OWN = "_target_: mine.Data\nroot: photos\n"
WHOLE = """views: ${views}
seed: ${seed}
image_size: 64
eval_resize: null
batch_size: 32
mean: [0.485, 0.456, 0.406]
std: [0.229, 0.224, 0.225]
num_workers: null
engine: device
label_fraction: null
labels_per_class: null
bank_size: 5000
query_size: null
resident: auto
"""


@pytest.mark.parametrize(
    "text",
    [
        f"defaults: [_images, _self_]\n{OWN}image_size: 64\nbatch_size: 32\n",
        f"defaults:\n  - _images\n{OWN}image_size: 64\nbatch_size: 32\n",
        "# @package _global_\ndefaults: [/data/_images@data, _self_]\n"
        "data: {_target_: mine.Data, root: photos, image_size: 64, batch_size: 32}\n",
        OWN + WHOLE,  # as they were written before
    ],
)
def test_a_yaml_of_ones_own(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(text)
    (tmp_path / "mine.py").write_text(
        "from ssl_lightning.modalities.image.sources.folder import Folder\nclass Data(Folder): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["data=mine", "data.num_workers=2", "data.label_fraction=0.5", "trusted_packages=[mine]"]
    config = compose(words, tmp_path)
    check(config)
    data = config.values["data"]
    assert (data["batch_size"], data["num_workers"], data["label_fraction"]) == (32, 2, 0.5)
    assert (data["image_size"], data["bank_size"], data["resident"]) == (64, 5000, "auto")
    assert data["views"] == config.values["views"]
    reference = compose(["data=folder", "data.root=photos", "data.image_size=64", "data.batch_size=32"]).values["data"]
    extra = reference.keys() - data.keys()  # what Folder itself takes
    assert {**data, "_target_": reference["_target_"], "num_workers": None, "label_fraction": None} == {
        key: value for key, value in reference.items() if key not in extra
    }


def test_they_are_no_options() -> None:
    assert "_loader" not in help.options("data")
    assert "_loader" not in help.text()
    for words in (["data=_loader"], ["data=_images", "data.batch_size=3"]):
        with pytest.raises(UserError, match=r"there is no data=_\w+\. There are: array, audio, "):
            compose(words)
    assert compose(["name=_loader"]).values["name"] == "_loader"


def test_a_key_that_only_the_shared_yaml_has_is_still_known_to_hints() -> None:
    with pytest.raises(UserError, match=r"'data.hop' is a key of data=audio \(or audio_wave, tones\)"):
        compose(["data=shapes", "data.hop=0.02"])
