"""stage=export: the file loads into torchvision's and timm's own models, by the very lines that the card gives."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning import load_backbone
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.stages import export
from tests.stages.tiny_run import NODE, TinyData, a_folder, a_run, judged

RESNET = {"_target_": "ssl_lightning.models.resnet.resnet", "name": "resnet18", "zero_init_residual": False}
TIMM = {"_target_": "ssl_lightning.models.timm.timm_backbone", "pretrained": False}


def by_the_card_s_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.chdir(folder)
    scope: dict[str, Any] = {}
    exec("\n".join(json.loads((folder / "backbone.json").read_text())["load"]), scope)
    return scope["net"].eval()


@pytest.mark.parametrize(
    ("node", "size", "without_us"),
    [
        (RESNET | {"stem": "imagenet"}, 64, True),
        (RESNET | {"stem": "cifar"}, 32, True),
        (TIMM | {"name": "resnet10t", "image_size": 32}, 32, True),
        (TIMM | {"name": "vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "depth": 2}, 32, True),
        (NODE, 16, False),
    ],
)
def test_loads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: dict[str, Any], size: int, without_us: bool
) -> None:
    net = instantiate(node)
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    save_backbone(net, node, tmp_path / "run", image_size=size, mean=[0.1] * 3, std=[0.2] * 3, method="byol", data="x")
    folder = a_folder(tmp_path / "out")
    found = export.run(judged(tmp_path / "run"), TinyData(), folder)
    card = json.loads((folder.path / "backbone.json").read_text())
    assert any("ssl_lightning" in line for line in card["load"]) != without_us
    assert card["sha256"] == hashlib.sha256((folder.path / "backbone.safetensors").read_bytes()).hexdigest()
    assert (card["out_dim"], card["image_size"], card["mean"]) == (net.out_dim, size, [0.1] * 3)
    assert found["parameters"] == sum(p.numel() for p in net.parameters())
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        wanted = net.eval()(x)
        assert torch.equal(by_the_card_s_lines(folder.path, monkeypatch)(x), wanted)
        assert torch.equal(load_backbone(folder.path)(x), wanted)


def test_a_bare_state_dict_gets_the_configured_backbone_and_the_data_s_normalisation(tmp_path: Path) -> None:
    net = ConvNetSmall(4)
    torch.save(net.state_dict(), tmp_path / "x.pt")
    folder = a_folder(tmp_path / "out")
    export.run(judged(tmp_path / "x.pt"), TinyData(), folder)
    card = json.loads((folder.path / "backbone.json").read_text())
    assert card["backbone"] == NODE
    assert card["mean"] == [0.4] * 3
    assert torch.equal(load_backbone(folder.path).conv1[0].weight, net.conv1[0].weight)


def test_the_run_it_came_from_stays_as_it_was(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    before = (run / "backbone.safetensors").read_bytes()
    export.run(judged(run), TinyData(), a_folder(tmp_path / "out"))
    assert (run / "backbone.safetensors").read_bytes() == before
