"""Who is in which group, for fine-tuning and for training."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.optim.param_groups import block_numbers, layer_decay, split_decay


def test_biases_and_norms_have_neither_decay_nor_adaptation() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    net[2].weight.requires_grad_(False)
    weights, rest = split_decay(net.named_parameters())
    assert weights == {"params": [net[0].weight]}
    assert {id(p) for p in rest["params"]} == {id(p) for p in (net[0].bias, *net[1].parameters(), net[2].bias)}
    assert rest["weight_decay"] == 0
    assert rest["adapt"] is False


def test_no_empty_groups() -> None:
    assert len(split_decay(nn.Linear(2, 2, bias=False).named_parameters())) == 1
    assert len(split_decay(nn.BatchNorm1d(2).named_parameters())) == 1
    with pytest.raises(UserError, match="nothing to optimize"):
        split_decay(nn.Linear(2, 2).requires_grad_(False).named_parameters())


def test_blocks_of_a_resnet() -> None:
    net = torchvision.models.resnet18(weights=None)
    net.fc = nn.Identity()
    numbers = block_numbers(net)
    assert set(numbers) == {name for name, _ in net.named_parameters()}
    expected = {"conv1": 0, "bn1": 0, "layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4}
    assert all(number == expected[name.split(".")[0]] for name, number in numbers.items())
    wrapped = block_numbers(nn.ModuleDict({"net": net}))
    assert wrapped == {f"net.{name}": number for name, number in numbers.items()}


def test_blocks_of_other_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 2, 4))
            self.act = nn.ReLU()
            self.first = nn.Linear(4, 4)
            self.second = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
            self.norm = nn.LayerNorm(4)

    numbers = block_numbers(Net())
    assert {name.split(".")[0]: number for name, number in numbers.items()} == {
        "position": 0,
        "first": 0,
        "second": 1,
        "norm": 1,
    }


def test_timm_models_say_it_themselves() -> None:
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=3)
    numbers = block_numbers(net)
    assert numbers["pos_embed"] == numbers["patch_embed.proj.weight"] == 0
    assert [numbers[f"blocks.{i}.mlp.fc1.weight"] for i in range(3)] == [1, 2, 3]
    assert numbers["norm.weight"] == max(numbers.values())


def test_layer_decay() -> None:
    backbone = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    backbone[0].requires_grad_(False)
    head = nn.Linear(4, 2)
    groups = layer_decay(backbone, head, lr=1.0, decay=0.5, weight_decay=0.1)
    table = [(group["name"], group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
    assert table == [
        ("block 1", 0.25, 0.1, 1),
        ("block 1", 0.25, 0.0, 1),
        ("block 2", 0.5, 0.1, 1),
        ("block 2", 0.5, 0.0, 1),
        ("head", 1.0, 0.1, 1),
        ("head", 1.0, 0.0, 1),
    ]
    optimizer = torch.optim.AdamW(groups)
    assert [group["lr"] for group in optimizer.param_groups] == [row[1] for row in table]
    with pytest.raises(UserError, match="at most 1"):
        layer_decay(backbone, head, lr=1.0, decay=1.5, weight_decay=0.1)
