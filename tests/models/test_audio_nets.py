"""The convnets of audio: sizes, steps, what a step sees, and the image convnets on log-mels."""

import pytest
import torch
from torch import nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.models.audio import MelConvNet, WaveConvNet
from ssl_lightning.models.channels import in_channels
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.timm import timm_backbone


@pytest.mark.parametrize("length", [160, 161, 8000, 7999])
def test_a_step_is_160_samples(length: int) -> None:
    net = WaveConvNet(width=8)
    assert net.feature_map(torch.randn(2, 1, length)).shape == (2, 8, length // 160)
    assert net(torch.randn(2, 1, length)).shape == (2, 8)
    assert (net.out_dim, net.strides, net.receptive_field) == (8, (160,), 465)
    assert in_channels(net) == 1


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_step_sees_its_receptive_field(norm: str) -> None:
    net = WaveConvNet(width=8, norm=norm).double().eval()
    x = torch.randn(1, 1, 3200, dtype=torch.float64, requires_grad=True)
    if norm == "group":  # the norm of a whole clip sees it all; its convolutions do not
        for layer in net.layers:
            layer["norm"] = nn.Identity()  # type: ignore[index]
    net.feature_map(x)[0, :, 10].sum().backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero().flatten()
    assert int(seen.max() - seen.min()) < 465
    assert int(seen.max() - seen.min()) > 350
    assert int(seen.min()) <= 1600 <= int(seen.max())


def test_group_norm_keeps_clips_apart() -> None:
    x = torch.randn(3, 1, 800)
    net = WaveConvNet(width=8, norm="group")
    torch.testing.assert_close(net(x)[:1], net(x[:1]))
    with pytest.raises(UserError, match="norm=layer"):
        WaveConvNet(norm="layer")
    with pytest.raises(UserError, match="do not fit"):
        WaveConvNet(kernels=(3,), layer_strides=(4,))
    with pytest.raises(UserError, match="shorter than a step"):
        net(torch.randn(1, 1, 100))


@pytest.mark.parametrize("frames", [1, 7, 100])
def test_the_mel_convnet_takes_any_length(frames: int) -> None:
    net = MelConvNet(mels=20, width=4, out_dim=16)
    x = torch.randn(2, 1, 20, frames)
    assert net.feature_map(x).shape == (2, 16, -(-frames // 8))
    steps = net.eval().feature_map(x)
    torch.testing.assert_close(net(x), steps.mean(2) + steps.max(2).values)
    with pytest.raises(UserError, match=r"set backbone\.mels"):
        net(torch.randn(2, 1, 21, frames))


def test_which_band_it_was_is_not_lost() -> None:
    net = MelConvNet(mels=64, width=4, out_dim=16).eval()
    low, high = torch.zeros(1, 1, 64, 16), torch.zeros(1, 1, 64, 16)
    low[:, :, 16:24], high[:, :, 40:48] = 1, 1
    assert not torch.allclose(net(low), net(high), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 100), (40, 33), (5, 1)])
def test_image_convnets_take_log_mels(size: tuple[int, int]) -> None:
    assert ConvNetSmall(width=8, in_channels=1)(torch.randn(2, 1, *size)).shape == (2, 32)


def test_a_timm_network_takes_log_mels() -> None:
    net = timm_backbone("test_resnet", in_channels=1)
    assert net(torch.randn(2, 1, 64, 100)).shape == (2, net.out_dim)
