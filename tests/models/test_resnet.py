"""ResNets are torchvision's own, minus the classifier; the CIFAR stem keeps the resolution."""

import pytest
import torch
from torchvision import models

from ssl_lightning.core.errors import UserError
from ssl_lightning.models.resnet import RESNETS, resnet


@pytest.mark.parametrize(("name", "out_dim"), [("resnet18", 512), ("resnet50", 2048)])
def test_state_dict_loads_into_plain_torchvision(name: str, out_dim: int) -> None:
    net = resnet(name).eval()
    plain = getattr(models, name)(weights=None).eval()
    missing = plain.load_state_dict(net.state_dict(), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"]
    assert missing.unexpected_keys == []
    plain.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    assert net.out_dim == out_dim
    assert net(x).shape == (2, out_dim)
    torch.testing.assert_close(net(x), plain(x), rtol=0, atol=0)


def test_cifar_stem_keeps_the_resolution_up_to_the_first_stage() -> None:
    net = resnet("resnet18", stem="cifar").eval()
    seen: list[torch.Size] = []
    net.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    net.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert net(torch.randn(1, 3, 32, 32)).shape == (1, 512)
    assert seen == [(1, 64, 32, 32), (1, 512, 4, 4)]
    conv = net.conv1
    assert (conv.kernel_size, conv.stride, conv.padding, conv.bias) == ((3, 3), (1, 1), (1, 1), None)
    plain = models.resnet18(weights=None).state_dict()
    assert set(net.state_dict()) == set(plain) - {"fc.weight", "fc.bias"}


def test_zero_init_residual_makes_each_block_start_as_its_shortcut() -> None:
    assert resnet("resnet18", zero_init_residual=True).layer1[0].bn2.weight.abs().sum() == 0
    assert resnet("resnet18").layer1[0].bn2.weight.abs().sum() > 0


def test_every_name_exists_in_torchvision() -> None:
    assert {name for name in models.resnet.__all__ if name in models.list_models()} == set(RESNETS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"name": "resnet_18"}, "Did you mean 'resnet18'"), ({"stem": "cifr"}, "Did you mean 'cifar'")],
)
def test_wrong_names_are_answered_with_the_nearest(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        resnet(**arguments)
    assert "\n" not in str(caught.value)
