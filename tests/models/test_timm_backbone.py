"""timm's networks: out_dim is what comes out, ViTs are built for the image size, mistakes are answered in one line."""

import pytest
import timm
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.models.timm import timm_backbone


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet10t", 32),
        ("mobilenetv3_small_050", 64),  # a layer between pooling and classifier: wider than num_features
        ("convnext_atto", 64),
        ("vit_tiny_patch16_224", 32),
        ("vit_tiny_patch16_224", 96),
        ("xcit_nano_12_p16_224", 32),  # its patch size is a number, where others have a pair
    ],
)
def test_out_dim_is_the_width_of_what_comes_out(name: str, size: int) -> None:
    net = timm_backbone(name, image_size=size).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, size, size)).shape == (2, net.out_dim)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_spectrograms_are_images_of_one_channel(name: str) -> None:
    net = timm_backbone(name, image_size=[64, 96], in_channels=1).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 1, 64, 96)).shape == (2, net.out_dim)


def test_arguments_reach_timm() -> None:
    net = timm_backbone("vit_tiny_patch16_224", image_size=32, patch_size=8, depth=2)
    assert len(net.blocks) == 2
    assert net.pos_embed.shape == (1, 17, 192)  # 4 x 4 patches and the class token


def test_state_dict_is_timms_own() -> None:
    net = timm_backbone("resnet10t")
    assert set(net.state_dict()) == set(timm.create_model("resnet10t", num_classes=0).state_dict())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "vit_tiny_patch16_22"}, "Did you mean 'vit_tiny_patch16_224'"),
        ({"name": "vit_tiny_patch16_224", "image_size": 40}, "16 px, which do not divide 40 px"),
        ({"name": "vit_tiny_patch16_224", "image_size": [64, 90]}, "16 px, which do not divide 64 x 90 px"),
        ({"name": "xcit_nano_12_p16_224", "image_size": 40}, "refuses an argument: `patch_size` should divide"),
        ({"name": "resnet10t", "no_such_option": 1}, "no_such_option"),
        ({"name": "resnet10t", "pretrained": True}, "set pretrained=false"),
    ],
)
def test_mistakes(arguments: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", no_network)
    with pytest.raises(UserError, match=words) as caught:
        timm_backbone(**arguments)
    assert "\n" not in str(caught.value)
