"""The pyramid: strides, shapes and gradients of each kind of network, and torchvision's own for a ResNet."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.pyramid import Pyramid, full_precision, stage_maps
from ssl_lightning.models.resnet import resnet
from ssl_lightning.models.timm import timm_backbone
from ssl_lightning.models.vit import ViT


def vit(**options: object) -> ViT:
    return ViT(**{"image_size": 32, "patch_size": 8, "dim": 24, "depth": 1, "heads": 3, **options})  # type: ignore[arg-type]


NETWORKS = {
    "convnet": (lambda: ConvNetSmall(8), (2, 4, 8)),
    "resnet": (lambda: resnet("resnet18"), (4, 8, 16, 32)),
    "resnet_cifar": (lambda: resnet("resnet18", stem="cifar"), (1, 2, 4, 8)),
    "timm_resnet": (lambda: timm_backbone("resnet10t"), (4, 8, 16, 32)),
    "timm_convnext": (lambda: timm_backbone("convnext_atto"), (4, 8, 16, 32)),
    "vit": (vit, (2, 4, 8, 16)),
    "timm_vit": (
        lambda: timm_backbone("vit_tiny_patch16_224", image_size=64, depth=1, embed_dim=24, num_heads=3),
        (4, 8, 16, 32),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_levels_have_their_strides_and_all_of_the_backbone_gets_a_gradient(name: str) -> None:
    make, strides = NETWORKS[name]
    torch.manual_seed(0)
    network = make()
    x = torch.randn(2, 3, 64, 64)
    pyramid = Pyramid(network, x[:1], 12)
    assert pyramid.strides == strides
    found = pyramid(x)
    assert {key: tuple(one.shape) for key, one in found.items()} == {
        str(i): (2, 12, 64 // stride, 64 // stride) for i, stride in enumerate(strides)
    }
    sum(one.square().mean() for one in found.values()).backward()
    unread = {key for key, value in network.named_parameters() if value.requires_grad and value.grad is None}
    assert all(key.startswith("head.") for key in unread), unread  # behind the map, of ConvNeXt
    first = next(value for value in network.parameters() if value.ndim == 4)
    assert first.grad is not None
    assert first.grad.abs().max() > 0
    assert not any(key.startswith("backbone") or "held" in key for key in pyramid.state_dict())
    assert all(value.grad is not None for value in pyramid.parameters())


def test_it_is_torchvisions_own_pyramid_for_a_resnet() -> None:
    torch.manual_seed(0)
    network = resnet("resnet18").eval()
    x = torch.randn(1, 3, 64, 64)
    pyramid = Pyramid(network, x, 16, extra=LastLevelMaxPool())
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    theirs = BackboneWithFPN(resnet18(weights=None), layers, [64, 128, 256, 512], 16)
    theirs.load_state_dict({f"body.{key}": value for key, value in network.state_dict().items()} | pyramid.state_dict())
    wanted, found = theirs.eval()(x), pyramid(x)
    assert list(wanted) == list(found) == ["0", "1", "2", "3", "pool"]
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_the_last_stage_is_the_map_that_features_are_the_mean_of() -> None:
    for make in (lambda: ConvNetSmall(8), lambda: resnet("resnet18")):
        network, x = make().eval(), torch.randn(2, 3, 64, 64)
        assert torch.allclose(stage_maps(network, x)[-1].mean((2, 3)), network(x), atol=1e-6)


def test_a_vit_takes_images_of_another_size() -> None:
    x = torch.randn(1, 3, 48, 48)  # its own are 32 px
    assert [one.shape[-1] for one in Pyramid(vit(), x, 8)(x).values()] == [24, 12, 6, 3]


def test_a_network_without_a_map_is_refused() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(48, 8))
    plain.out_dim = 8  # type: ignore[assignment]
    with pytest.raises(UserError, match="need a network with a feature map"):
        Pyramid(plain, torch.zeros(1, 3, 4, 4), 8)


def test_mixed_precision_is_for_the_backbone_alone() -> None:
    seen: list[torch.dtype] = []
    network, x = ConvNetSmall(8), torch.randn(1, 3, 32, 32)
    pyramid = Pyramid(network, x, 8)
    network.conv1[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16), full_precision(pyramid, "cpu"):
        found: OrderedDict[str, torch.Tensor] = pyramid(x)
    assert seen == [torch.bfloat16]
    assert {one.dtype for one in found.values()} == {torch.float32}
