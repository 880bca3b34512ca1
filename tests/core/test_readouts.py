"""Readouts against naive recomputations, block by block, and the grid that chooses among them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.readouts import Readouts, columns
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.models.audio import MelConvNet, WaveConvNet
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.resnet import resnet
from ssl_lightning.models.timm import timm_backbone
from ssl_lightning.models.transformer1d import Transformer1d
from ssl_lightning.models.vit import ViT
from ssl_lightning.tasks.classify import Classify

SIZES = {"dim": 12, "depth": 3, "heads": 2}
IMAGES = torch.linspace(-2, 2, 2 * 3 * 32 * 32).sin().view(2, 3, 32, 32)


def read(network: nn.Module, x: Tensor, *names: str) -> dict[str, Tensor]:
    reading = Readouts(network.eval(), names)
    with torch.no_grad():
        found = reading(x)
    assert found.shape == (len(x), reading.out_dim)
    return {name: found[:, place] for name, place in columns(reading.widths).items()}


def blocks_one_by_one(net: ViT, x: Tensor) -> list[Tensor]:
    """The naive way: each block's output after the last norm."""
    states, tokens = [], net.norm_pre(net._pos_embed(net.patch_embed(x)))
    for block in net.blocks:
        tokens = block(tokens)
        states.append(net.norm(tokens))
    return states


@pytest.mark.parametrize("readout", ["cls", "mean", "both"])
def test_of_a_vit(readout: str) -> None:
    net = ViT(32, 8, readout=readout, registers=2, **SIZES)  # type: ignore[arg-type]
    found = read(net, IMAGES, "features", "mean", "cls", "last2", "last3")
    with torch.no_grad():
        states = blocks_one_by_one(net, IMAGES)
        assert torch.equal(found["features"], net(IMAGES))
    torch.testing.assert_close(found["cls"], states[-1][:, 0])
    torch.testing.assert_close(found["mean"], states[-1][:, 3:].mean(1))
    torch.testing.assert_close(found["last2"], torch.cat([s[:, 0] for s in states[-2:]], 1))
    torch.testing.assert_close(found["last3"], torch.cat([s[:, 0] for s in states], 1))
    assert not any(block._forward_hooks for block in net.blocks)  # the network is left as it was


def test_without_a_class_token_blocks_are_read_by_their_patches() -> None:
    net = ViT(32, 8, readout="mean", class_token=False, **SIZES)  # type: ignore[arg-type]
    found = read(net, IMAGES, "last2", "mean")
    with torch.no_grad():
        states = blocks_one_by_one(net, IMAGES)
    torch.testing.assert_close(found["last2"], torch.cat([s.mean(1) for s in states[-2:]], 1))
    with pytest.raises(UserError, match="ViT has no class token to read cls from"):
        Readouts(net, ["cls"])


def test_of_a_transformer_on_waves_and_of_timm_s() -> None:
    waves, net = torch.linspace(-3, 3, 2 * 64).sin().view(2, 1, 64), Transformer1d(64, 16, **SIZES)
    found = read(net, waves, "features", "cls", "last1")
    with torch.no_grad():
        assert torch.equal(found["features"], net(waves))
    assert torch.equal(found["cls"], found["last1"])
    theirs = timm_backbone("vit_tiny_patch16_224", img_size=32, depth=2)
    found = read(theirs, IMAGES, "features", "cls", "last2")
    with torch.no_grad():
        torch.testing.assert_close(found["features"], theirs(IMAGES))
    torch.testing.assert_close(found["last2"][:, 192:], found["cls"])


CONVNETS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "ours": (lambda: ConvNetSmall(4), []),
    "resnet": (lambda: resnet("resnet18", "cifar"), ["layer1", "layer2", "layer3", "layer4"]),
    "timm": (lambda: timm_backbone("resnet10t"), ["act1", "layer1", "layer2", "layer3", "layer4"]),
    "channels last": (lambda: timm_backbone("convnext_atto"), ["stages.0", "stages.1", "stages.2", "stages.3"]),
}


@pytest.mark.parametrize("name", CONVNETS)
def test_of_a_convolutional_network(name: str) -> None:
    make, modules = CONVNETS[name]
    net = make().eval()
    calls = []
    net.register_forward_pre_hook(lambda module, args: calls.append(module))
    found = read(net, IMAGES, "features", "mean", "last3")
    assert len(calls) == 1, "one forward pass"
    maps: dict[str, Tensor] = {}
    for module in modules:
        net.get_submodule(module).register_forward_hook(lambda m, a, out, module=module: maps.update({module: out}))
    with torch.no_grad():
        assert torch.equal(found["features"], net(IMAGES))
        if isinstance(net, ConvNetSmall):
            one = torch.relu(net.conv1(IMAGES))
            two = torch.relu(net.conv2(one))
            three = torch.relu(net.conv3(two))
            maps = {"1": one, "2": two, "3": three, "4": net.block(three)}
    means = [made.mean((2, 3)) for made in maps.values()]
    torch.testing.assert_close(found["last3"], torch.cat(means[-3:], 1))
    if name != "channels last":  # ConvNeXt has a norm behind its map
        torch.testing.assert_close(found["mean"], found["features"])
    assert "feature_map" not in vars(net)
    assert "forward_features" not in vars(net)


def test_of_networks_of_audio() -> None:
    waves, mels = torch.linspace(-3, 3, 2 * 640).sin().view(2, 1, 640), torch.ones(2, 1, 16, 32)
    net = WaveConvNet(8).eval()
    assert torch.equal(*read(net, waves, "features", "mean").values())
    mel = MelConvNet(mels=16, width=4, out_dim=8).eval()
    with torch.no_grad():
        torch.testing.assert_close(read(mel, mels, "mean")["mean"], mel.feature_map(mels).mean(2))
    with pytest.raises(UserError, match=r"last2 asks for 2 stages, and WaveConvNet does not say"):
        Readouts(net, ["last2"])


class Plain(nn.Module):
    out_dim = 3

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("net", "names", "words"),
    [
        (Plain(), ["mean"], "Plain has no tokens or map to read mean from"),
        (ConvNetSmall(4), ["cls"], "ConvNetSmall has no class token to read cls from .*; leave cls out"),
        (ConvNetSmall(4), ["last5"], "last5 asks for 5 stages, and ConvNetSmall has 4"),
        (ConvNetSmall(4), ["max"], "no readout named 'max'"),
        (ConvNetSmall(4), ["last0"], "no readout named 'last0'"),
        (ConvNetSmall(4), [], "is empty"),
        (ConvNetSmall(4), ["mean", "mean"], "names one twice"),
    ],
)
def test_what_a_network_does_not_have_is_refused(net: nn.Module, names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Readouts(net, names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
@pytest.mark.parametrize("good", ["one", "two"])
def test_the_grid_over_readouts_chooses_what_separate_grids_would(optimizer: str, good: str) -> None:
    generator = torch.Generator().manual_seed(3)
    labels, noise = torch.arange(120) % 3, torch.randn(120, 9, generator=generator)
    one, two = noise[:, :5].clone(), noise[:, 5:].clone()
    one[:, :3] += (0.8 if good == "one" else 0.2) * torch.eye(3)[labels]
    two[:, :3] += (0.8 if good == "two" else 0.2) * torch.eye(3)[labels]
    both, settings = torch.cat([one, two], 1), ProbeSettings(epochs=8, optimizer=optimizer, seed=1)
    task, widths = Classify.of(3), {"features": 5, "mean": 4}
    found = probe_grid(both[:90], labels[:90], both[90:], labels[90:], task, settings, widths)
    alone = {
        name: probe_grid(x[:90], labels[:90], x[90:], labels[90:], task, settings)
        for name, x in {"features": one, "mean": two}.items()
    }
    best = {n: max((r["holdout_top1"], -r["holdout_loss"]) for r in a.table) for n, a in alone.items()}
    wanted = max(best, key=lambda name: best[name])
    assert found.readout == wanted == {"one": "features", "two": "mean"}[good]
    assert (found.lr, found.weight_decay) == (alone[wanted].lr, alone[wanted].weight_decay)
    assert torch.equal(found.weight, alone[wanted].weight)
    assert found.scores == alone[wanted].scores
    rows = [{**row, "readout": name} for name, a in alone.items() for row in a.table]
    assert found.table == rows
