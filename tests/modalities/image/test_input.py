"""Each setting that decides how an image becomes the network's input stands in the card, and is there again."""

import importlib
import inspect
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image import images, sources
from ssl_lightning.modalities.image.data import DataModule
from ssl_lightning.modalities.image.sources.array import Array
from ssl_lightning.modalities.image.views import EvalView
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs import card
from ssl_lightning.runs.checkpoint import resolve_ckpt, save_backbone

# What decides which images there are, in what order and on which machine; a new argument is put here or into the card.
OTHER = """views batch_size num_workers engine label_fraction labels_per_class bank_size query_size seed resident
worker_timeout root probe_root labels test_fraction train test label_column size test_size image_seed
pretrain_on group held_out masks annotations test_annotations"""
SAYS = {"size": "image_size", "resize": "eval_resize"}  # of the evaluation view
ALL = {"image_size": 24, "eval_resize": 30, "mean": [0.1], "std": [0.2], "channels": 1, "value_range": [0.0, 4095.0]}


def classes() -> list[type]:
    modules = [importlib.import_module(f"{sources.__name__}.{m.name}") for m in pkgutil.iter_modules(sources.__path__)]
    found = [value for module in modules for value in vars(module).values() if inspect.isclass(value)]
    return [DataModule, *dict.fromkeys(c for c in found if issubclass(c, DataModule) and c is not DataModule)]


def arguments(owner: Any) -> set[str]:
    named = inspect.signature(owner).parameters.values()
    return {p.name for p in named if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


@pytest.mark.parametrize("owner", classes(), ids=lambda owner: owner.__name__)
def test_each_argument_of_the_data_is_of_the_input_or_of_something_else(owner: type) -> None:
    assert arguments(owner) <= {*card.INPUT, *OTHER.split()}


def test_what_the_view_and_the_decoder_take_is_in_the_card() -> None:
    assert {SAYS.get(name, name) for name in arguments(EvalView)} <= {*card.INPUT}
    assert arguments(images.decode) - {"path"} <= {*card.INPUT}
    assert {*card.INPUT} <= {name for owner in classes() for name in arguments(owner)}


def test_a_card_gives_the_same_input_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    deep = torch.randint(0, 4000, (20, 40, 50)).numpy().astype("uint16")
    import numpy as np

    np.save(tmp_path / "x.npy", deep)
    data = Array(tmp_path / "x.npy", **ALL, num_workers=0)
    told = json.loads(json.dumps(data.card()))
    assert told == ALL
    save_backbone(ConvNetSmall(3, in_channels=1), {"_target_": "x"}, tmp_path, **told)
    found = resolve_ckpt(tmp_path / "backbone.safetensors").card
    assert found is not None
    again = Array(tmp_path / "x.npy", **{name: found[name] for name in card.INPUT}, num_workers=0)
    one, other = (next(iter(source.eval_loader("test"))).views[0] for source in (data, again))
    assert one.shape[-1] == 24
    assert torch.equal(one, other)
    plain = Array(tmp_path / "x.npy", **ALL | {"eval_resize": None}, num_workers=0)
    assert not torch.equal(one, next(iter(plain.eval_loader("test"))).views[0])


@pytest.mark.parametrize("name", ["image_size", "eval_resize", "channels"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "x", 10**6])
def test_a_card_with_no_such_number(name: str, value: Any) -> None:
    with pytest.raises(UserError, match="that is not valid"):
        card.described({"backbone": {"_target_": "x"}, name: value}, "x")
