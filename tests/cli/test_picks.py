"""Who picks the network and the views: what was typed, then the data by what the method needs, then the method."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_lightning.cli.picks import KEYS, KINDS
from ssl_lightning.cli.run import Config, compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.methods.base import SSLMethod

CONF = Path(__file__).parents[2] / "conf"
METHODS = sorted((CONF / "method").glob("*.yaml"))
SERIES = """
_target_: mine.Series
root: ???
picks:
  backbone: {vector: lstm, tokens: transformer}
  views: {one: crop_series, two: two_series}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config folder with a modality of somebody's own."""
    files = {
        "data/series": SERIES,
        "backbone/lstm": "_target_: mine.LSTM\nlayers: 2",
        "backbone/transformer": "_target_: mine.Transformer",
        "backbone/gru": "_target_: mine.GRU",
        "views/crop_series": "_target_: mine.Crops\ncount: 1",
        "views/two_series": "_target_: mine.Crops\ncount: 2",
        "views/three_series": "_target_: mine.Crops\ncount: 3",
        "experiment/mine": "# @package _global_\ndefaults: [override /data: series, override /backbone: gru,"
        " override /views: three_series, override /method: byol]",
        "experiment/wide": "# @package _global_\ndefaults: [override /backbone: resnet18]",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def chosen(words: str, folder: Path | None = None) -> tuple[Any, Any]:
    config = compose(words.split(), folder)
    return config.choices["backbone"], config.choices["views"]


@pytest.mark.parametrize(
    ("words", "backbone", "views"),
    [
        ("method=simclr", "lstm", "two_series"),
        ("", "lstm", "two_series"),  # the default method
        ("method=mae", "transformer", "crop_series"),  # whose own are vit_tiny and crop
        ("method=data2vec", "transformer", "crop_series"),
        ("method=rotation", "lstm", "crop_series"),
        ("method=densecl", "transformer", "two_series"),  # a map can be made of tokens
        ("method=dino", "lstm", "two_series"),  # no local views among these data: two global ones
        ("method=ibot", "transformer", "two_series"),
        ("method=mae backbone=gru", "gru", "crop_series"),  # what is typed stands
        ("method=mae views=three_series", "transformer", "three_series"),
        ("method=simclr backbone=resnet18 views=three_series", "resnet18", "three_series"),
        ("experiment=cpu method=mae", "transformer", "crop_series"),  # its views are of images
        ("experiment=wide", "resnet18", "two_series"),  # what an experiment chooses stands, too
        ("method=simclr backbone.layers=3 views.count=5", "lstm", "two_series"),
    ],
)
def test_data_pick_by_what_the_method_needs(folder: Path, words: str, backbone: str, views: str) -> None:
    assert chosen(f"data=series data.root=x {words}", folder) == (backbone, views)


def test_values_are_those_of_the_picked_options(folder: Path) -> None:
    config = compose(["data=series", "data.root=x", "method=mae", "experiment=cpu", "views.count=4"], folder)
    assert config.values["views"] == {"_target_": "mine.Crops", "count": 4}
    assert config.values["backbone"] == {"_target_": "mine.Transformer"}
    assert config.values["method"]["decoder"]["dim"] == 96  # the sizes of the CPU recipe are the method's
    assert not any(key in config.values[part] for key in KEYS for part in ("data", "method", "backbone", "views"))
    assert not any(key in config.values for key in KEYS)


def test_an_experiment_of_such_data_chooses_all(folder: Path) -> None:
    assert chosen("experiment=mine data.root=x", folder) == ("gru", "three_series")
    assert chosen("experiment=mine data.root=x method=mae backbone=lstm", folder) == ("lstm", "three_series")


@pytest.mark.parametrize("method", [path.stem for path in METHODS])
def test_images_have_what_the_methods_name(method: str) -> None:
    """Nothing is picked where the data name nothing: the yaml's own overrides hold."""
    said = yaml.safe_load((CONF / "method" / f"{method}.yaml").read_text())["defaults"]
    named = {
        key.removeprefix("override /"): value for item in said if isinstance(item, dict) for key, value in item.items()
    }
    backbone, views = chosen(f"method={method} data=cifar10")
    assert backbone == named.get("backbone", "convnet_small")
    assert views == named["views"]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_says_what_its_class_needs(path: Path) -> None:
    said = yaml.safe_load(path.read_text())
    needs = said.get("needs", {})
    module, _, name = said["method"]["_target_"].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, SSLMethod)
    views = needs.get("views", next(iter(KINDS["views"])))
    assert (views == "one") == (found.global_views == 1)
    assert views != "local" or found.uses_local_views
    # a method whose images are seen by a ViT needs tokens
    named = [item for item in said["defaults"] if isinstance(item, dict) and "override /backbone" in item]
    assert (needs.get("backbone") == "tokens") == any("vit" in item["override /backbone"] for item in named)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("{one:", "{ones:", "data/series: picks.views has no 'ones'. Did you mean 'one'?"),
        ("views: {", "view: {", "data/series: picks has no 'view'. Did you mean 'views'?"),
        ("lstm", "lst", "data/series: there is no backbone=lst"),
        (
            ", tokens: transformer",
            "",
            "method=mae needs a network that gives tokens, and data=series has no default; set backbone=",
        ),
        (
            "{vector: lstm, tokens: transformer}",
            "lstm",
            "data/series: picks.backbone takes one option for each of (vector, tokens, map)",
        ),
    ],
)
def test_what_cannot_be_read_is_said(folder: Path, old: str, new: str, line: str) -> None:
    file = folder / "data" / "series.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError) as caught:
        compose(["data=series", "data.root=x", "method=mae"], folder)
    assert str(caught.value) == line


def test_views_of_images_lack_what_only_images_have(folder: Path) -> None:
    line = "views=sym asks for data.image_size, which data=series does not have"
    with pytest.raises(UserError, match=line):
        compose(["data=series", "data.root=x", "views=sym"], folder)


def test_of_two_needs_the_method_says_one_wrongly(folder: Path) -> None:
    (folder / "method").mkdir()
    (folder / "method" / "own.yaml").write_text("_target_: mine.Own\nneeds: {backbone: token}")
    with pytest.raises(UserError, match=r"^method/own: needs.backbone has no 'token'. Did you mean 'tokens'\?$"):
        compose(["data=series", "data.root=x", "method=own"], folder)
    assert isinstance(compose(["method=own", "data=cifar10"], folder), Config)  # not asked where nothing is picked
