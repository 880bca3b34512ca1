"""The recipes for ImageNet at full size, on the meta device: as many parameters as the papers' networks have."""

import pytest
import torch

from ssl_lightning.build import compose
from ssl_lightning.instantiate import instantiate
from ssl_lightning.methods.base import SSLMethod

VIT_S, VIT_B = 21_665_664, 85_798_656  # without classifier: 22 and 86 million in the papers
# MAE's own count for encoder and decoder is 111,907,840, of which 197 * 512 are the decoder's fixed positions.
MAE_B = 111_907_840 - 197 * 512


def built(name: str) -> SSLMethod:
    config = compose([f"experiment=imagenet/{name}", "data.root=photos"]).values
    with torch.device("meta"):
        return instantiate(config["method"], backbone=instantiate(config["backbone"]))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "expected"), [("dino", VIT_S), ("mae", VIT_B), ("simmim", VIT_B), ("ijepa", VIT_B)])
def test_the_backbone_is_the_papers(name: str, expected: int) -> None:
    assert count(built(name).backbone) == expected


def test_mae_with_its_decoder_is_the_papers() -> None:
    assert count(built("mae")) == MAE_B


def test_dinos_head_has_the_papers_prototypes() -> None:
    projector = built("dino").projector
    assert projector.prototypes.shape == (65536, 256)
    assert [layer.weight.shape for layer in projector.mlp[::2]] == [(2048, 384), (2048, 2048), (256, 2048)]
