"""The recipes for ImageNet at full size, on the meta device: as many parameters as the papers' networks have."""

import pytest
import torch

from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.methods.base import SSLMethod
from tests.recipes import NAMES, composed

VIT_S, VIT_B, VIT_L = 21_665_664, 85_798_656, 303_301_632  # without classifier: 22, 86 and 303 million in the papers
RESNET_50 = 25_557_032 - (2048 + 1) * 1000  # torchvision's count without its classifier
# MAE's own count for encoder and decoder is 111,907,840, of which 197 * 512 are the decoder's fixed positions.
MAE_B = 111_907_840 - 197 * 512


def built(name: str) -> SSLMethod:
    config = composed(f"imagenet/{name}").values
    with torch.device("meta"):
        return instantiate(config["method"], backbone=instantiate(config["backbone"]))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dino", VIT_S),
        ("mae", VIT_B),
        ("simmim", VIT_B),
        ("ijepa", VIT_B),
        ("ibot", VIT_S),
        ("msn", VIT_S),
        ("data2vec", VIT_B + 2 * 12 * 768),  # a learned scale for either half of each block
        ("dinov2", VIT_L + 2 * 24 * 1024),
        ("rotation", RESNET_50),
        ("jigsaw", RESNET_50),
    ],
)
def test_the_backbone_is_the_papers(name: str, expected: int) -> None:
    assert count(built(name).backbone) == expected


def test_mae_with_its_decoder_is_the_papers() -> None:
    assert count(built("mae")) == MAE_B


@pytest.mark.parametrize(
    ("name", "prototypes", "dim"), [("dino", 65536, 384), ("ibot", 8192, 384), ("dinov2", 65536, 1024)]
)
def test_heads_have_the_papers_prototypes(name: str, prototypes: int, dim: int) -> None:
    method = built(name)
    for projector in filter(None, (method.projector, getattr(method, "patch_projector", None))):
        assert projector.prototypes.shape == (prototypes, 256)
        assert [layer.weight.shape for layer in projector.mlp[::2]] == [(2048, dim), (2048, 2048), (256, 2048)]
    assert (getattr(method, "patch_projector", None) is not None) == (name == "dinov2")


def test_small_things_are_the_papers_too() -> None:
    """One line each: the decoders' LayerNorms, MSN's activation, DINOv2's stochastic depth, MoCo's weight decay."""
    assert built("mae").decoder.norm.eps == built("ijepa").predictor.norm.eps == 1e-6
    assert [type(module).__name__ for module in built("msn").projector].count("GELU") == 2
    assert {block.drop_path1.drop_prob for block in built("dinov2").backbone.blocks} == {0.3}
    assert composed("imagenet100/moco").values["optimizer"]["decay_biases"] is True


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("imagenet")])
def test_crops_are_bicubic_where_they_are_the_authors(name: str) -> None:
    """As in solo-learn, DINO, iBOT, DINOv2 and MAE, in every view; others are bilinear, torchvision's default."""
    views = instantiate(composed(name).values["views"]).list()
    cubic = name.startswith("imagenet100/") or name.split("/")[1] in ("dino", "ibot", "dinov2", "mae")
    assert {view.interpolation for view in views} == {"bicubic" if cubic else "bilinear"}
