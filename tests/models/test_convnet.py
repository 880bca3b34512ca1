"""The small convnet: its size, any image size, and its features by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.models.convnet import ConvNetSmall


def test_parameters_and_width() -> None:
    net = ConvNetSmall()
    assert sum(p.numel() for p in net.parameters()) == 873_648
    assert net.out_dim == 192
    assert ConvNetSmall(width=8).out_dim == 32


@pytest.mark.parametrize("size", [(32, 32), (96, 96), (33, 20), (5, 5)])
def test_any_image_size(size: tuple[int, int]) -> None:
    net = ConvNetSmall(width=8)
    assert net(torch.randn(3, 3, *size)).shape == (3, 32)


def test_forward_is_the_plain_sequence_of_convolutions() -> None:
    net = ConvNetSmall(width=4).double().eval()
    for norm in [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(norm.weight)
    state = net.state_dict()

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        x = F.conv2d(x, state[f"{name}.0.weight"], stride=stride, padding=1)
        mean, var, weight, bias = (
            state[f"{name}.1.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    x = images
    for name in ("conv1", "conv2", "conv3"):
        x = conv(x, name, stride=2).clamp(min=0)
    x = (x + conv(conv(x, "block.conv1").clamp(min=0), "block.conv2")).clamp(min=0)
    torch.testing.assert_close(net(images), x.mean((2, 3)), rtol=1e-12, atol=1e-12)
