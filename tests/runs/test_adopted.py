"""Networks of others as backbones: their width found, their classifier off, and one line for what gives no features."""

import copy
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.runs.adopted import adopted


class Maps(nn.Module):
    """A map (B, 6, H / 2, W / 2), handed out as `give` says."""

    def __init__(self, give: Any = lambda x: x, channels: int = 3) -> None:
        super().__init__()
        self.conv, self.norm, self.give = nn.Conv2d(channels, 6, 2, stride=2), nn.BatchNorm2d(6), give

    def forward(self, x: Tensor) -> Any:
        return self.give(self.norm(self.conv(x)))


class Pair(NamedTuple):
    features: Tensor
    map: Tensor


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


GIVEN: dict[str, Any] = {
    "features": pooled,
    "a map": lambda x: x,
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "a map of one place": lambda x: x.mean((2, 3), keepdim=True),
    "a tuple of one": lambda x: (pooled(x),),
    "a named tuple": lambda x: Pair(pooled(x), x),
    "a dict": lambda x: {"map": x, "pooled": pooled(x)},
    "a dict of a map": lambda x: OrderedDict(out=x),
    "a list": lambda x: [x, None, pooled(x)],
}


@pytest.mark.parametrize("name", GIVEN)
def test_features_are_found(name: str) -> None:
    net = Maps(GIVEN[name])
    state = copy.deepcopy(net.state_dict())
    assert adopted(net) is net
    assert net.out_dim == 6
    assert net.training
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items()), "a trial leaves no trace"
    x = torch.rand(5, 3, 8, 12)
    for mode in (True, False):
        net.train(mode)
        torch.testing.assert_close(net(x), pooled(net.norm(net.conv(x))))
    again = adopted(copy.deepcopy(net))
    torch.testing.assert_close(again(x), net(x))


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda x: x.flatten(2).transpose(1, 2), r"gives tokens \(2, 1024, 6\); return one vector per image"),
        (lambda x: (pooled(x), pooled(x)), r"gives a tuple \(0: \(2, 6\), 1: \(2, 6\)\); return the one tensor"),
        (lambda x: {"a": x, "b": x}, r"gives a dict \(a: .*; return the one tensor"),
        (lambda x: "text", r"gives a str \(no tensor\)"),
        (lambda x: x.flatten(1), r"gives 6144 features of an image of 64 px and 1536 of one of 32; average them"),
        (lambda x: x.mean(), r"gives a tensor \(\) of two images"),
        (lambda x: x[:, :, :6, :6], r"a map \(2, 6, 6, 6\) that does not tell"),
        (lambda x: pooled(x).argmax(1), r"gives a tensor \(2,\) of two images"),
    ],
)
def test_what_is_no_features_gets_a_line(give: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        adopted(Maps(give))
    assert "\n" not in str(caught.value)


def test_a_network_that_says_its_width_is_believed_and_checked() -> None:
    net = Maps(pooled)
    net.out_dim = 6
    assert adopted(net)._forward_hooks == {}
    net.out_dim = 7
    with pytest.raises(UserError, match=r"says out_dim=7 and gives features 6 wide"):
        adopted(net)
    net.out_dim = 6.0  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"must be the width of the features, an integer"):
        adopted(net)
    last: Any = Maps()
    last.out_dim = 6
    assert adopted(last)(torch.rand(2, 3, 8, 8)).shape == (2, 6)
    with pytest.raises(UserError, match=r"must be a torch\.nn\.Module; function is not"):
        adopted(pooled)  # type: ignore[arg-type]


def test_a_network_that_fails_is_quoted() -> None:
    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("only on Sundays\nsecond line")

    with pytest.raises(UserError, match=r"fails on two images \(2, 3, 64, 64\): only on Sundays; give it an integer"):
        adopted(Maps(broken))


def test_channels_and_outputs_of_training() -> None:
    assert adopted(Maps(channels=1)).out_dim == 6
    net = Maps()
    net.give = lambda x: pooled(x) if not net.training else (pooled(x), pooled(x))
    with pytest.raises(UserError, match="in training a tuple"):
        adopted(net)


class Whole(nn.Module):
    """A classifier as people write them."""

    def __init__(self, name: str, head: nn.Module) -> None:
        super().__init__()
        self.name, self.conv = name, nn.Conv2d(3, 6, 2, stride=2)
        self.add_module(name, head)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.name)(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize("name", ["fc", "head", "classifier", "linear", "last_linear"])
def test_a_classifier_is_taken_off(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    net: Any = Whole(name, nn.Linear(6, 10))
    type(net).__name__ = f"Whole_{name}"
    assert adopted(net).out_dim == 6
    assert f"the classifier '{name}' (6 to 10) is taken off" in capsys.readouterr().err
    other: Any = Whole("projection", nn.Linear(6, 10))
    assert adopted(other).out_dim == 10
    kept: Any = Whole(name, nn.Linear(6, 10))
    kept.out_dim = 10
    assert adopted(kept)(torch.rand(2, 3, 8, 8)).shape == (2, 10)


def test_only_the_last_word_is_a_classifier() -> None:
    class Early(Whole):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    assert adopted(Early("fc", nn.Linear(6, 10))).out_dim == 10
    deep = Whole("classifier", nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 10)))
    assert adopted(deep).out_dim == 5


@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet18", 512), ("mobilenet_v3_small", 1024), ("squeezenet1_1", 512), ("shufflenet_v2_x0_5", 1024)],
)
def test_networks_of_torchvision(name: str, width: int) -> None:
    net: Any = torchvision.models.get_model(name)
    assert adopted(net).out_dim == width
    assert net.eval()(torch.rand(2, 3, 64, 64)).shape == (2, width)


def test_torchvisions_vit_and_timms_networks() -> None:
    vit: Any = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16)
    assert adopted(vit).out_dim == 8
    net: Any = timm.create_model("resnet10t", num_classes=7)
    assert adopted(net).out_dim == 512
    assert net.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 512)


def test_a_method_takes_such_a_network() -> None:
    net: Any = Maps()
    method = SimCLR(net, lambda dim: nn.Linear(dim, 4), lambda z1, z2: (z1 * z2).sum())
    assert method.backbone.out_dim == 6
    assert method.embed(torch.rand(4, 3, 8, 8)).shape == (4, 6)
    output = method.training_step(([torch.rand(4, 3, 8, 8)] * 2, torch.arange(4)), 0)  # type: ignore[arg-type]
    assert output["features"].shape == (8, 6)
