"""Methods that look at pixels take images of other channels than three; the one of colours says that it cannot."""

import pytest
import torch
from torch import nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.models.vit import ViT
from tests.methods import harness


def two_channels(name: str) -> nn.Module:
    if harness.needs_vit(name):
        chosen = {key: harness.config_of(name)["backbone"][key] for key in ("readout", "positions")}
        return ViT(image_size=4, patch_size=1, dim=8, depth=2, heads=2, in_channels=2, **chosen)
    backbone = harness.SmoothBackbone()
    backbone[0] = nn.Conv2d(2, 8, 2, stride=2)
    return backbone


@pytest.fixture(autouse=True)
def of_two_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "tiny_backbone", two_channels)


def batch_for(name: str) -> Batch:
    batch = harness.batch_for(name)
    return batch._replace(views=[view[:, :2] for view in batch.views])


def tiny(name: str) -> SSLMethod:
    return harness.tiny_method(name)


@pytest.mark.parametrize("name", ["mae", "simmim", "ijepa", "ibot", "cpc", "jigsaw", "relative_position", "densecl"])
def test_a_step_and_its_pictures(name: str) -> None:
    method, batch = tiny(name), batch_for(name)
    method.check_views([view.shape[-1] for view in batch.views][: method.global_views or 2])
    found = harness.step(method, batch)
    assert torch.isfinite(found["loss"])
    found["loss"].backward()
    for columns in getattr(method, "pictures", lambda batch: {})(batch).values():
        assert all(column.shape[1] in (2, 3) for column in columns)
        assert columns[0].shape[1] == 2


def test_colours_cannot_be_predicted_of_other_channels() -> None:
    with pytest.raises(UserError, match="colourisation predicts colours"):
        tiny("colorization")
