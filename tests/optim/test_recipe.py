"""The one rule for learning rates, what Lightning is handed, and the shipped yaml files."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.core.errors import UserError
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine

CONF = Path(__file__).parents[2] / "conf"


def recipe() -> OptimizerRecipe:
    schedule = WarmupCosine(warmup_epochs=1)
    return OptimizerRecipe(partial(LARS, eta=0.02, clip=True), base_lr=0.4, weight_decay=1e-4, scheduler=schedule)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


def test_the_rate_is_linear_in_the_global_batch() -> None:
    assert recipe().lr(256) == pytest.approx(0.4)
    assert recipe().lr(4096) == pytest.approx(6.4)
    with pytest.raises(UserError, match="base_lr is 0"):
        OptimizerRecipe(LARS, 0, 0, WarmupCosine())


def test_groups_take_the_recipe_and_the_schedule() -> None:
    built = recipe().build(net(), global_batch=512, total_steps=100, steps_per_epoch=10)
    assert built["lr_scheduler"]["interval"] == "step"
    weights, rest = built["optimizer"].param_groups
    assert (weights["weight_decay"], weights["adapt"]) == (1e-4, True)
    assert (rest["weight_decay"], rest["adapt"]) == (0.0, False)
    assert weights["lr"] == rest["lr"] == pytest.approx(3e-5)  # where the warm-up starts


def train(module: nn.Module, built: dict[str, Any], steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(built["optimizer"].param_groups[0]["lr"])
        module(torch.arange(12.0).view(4, 3)).pow(2).sum().backward()
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()
    return rates


def test_a_resumed_run_has_the_same_rates_and_weights(tmp_path: Path) -> None:
    straight = net()
    rates = train(straight, recipe().build(straight, 256, 20, 2), 20)
    assert rates[-1] == 0
    assert max(rates) == pytest.approx(0.4)
    broken = net()
    built = recipe().build(broken, 256, 20, 2)
    train(broken, built, 9)
    states = (broken.state_dict(), built["optimizer"].state_dict(), built["lr_scheduler"]["scheduler"].state_dict())
    torch.save(states, tmp_path / "state.pt")
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = net()
    built = recipe().build(resumed, 256, 20, 2)
    for part, state in zip((resumed, built["optimizer"], built["lr_scheduler"]["scheduler"]), states, strict=True):
        part.load_state_dict(state)
    resumed.zero_grad()
    for p, q in zip(resumed.parameters(), broken.parameters(), strict=True):
        p.grad = q.grad  # `train` never clears gradients
    assert train(resumed, built, 11) == rates[9:]
    assert all(torch.equal(p, q) for p, q in zip(resumed.parameters(), straight.parameters(), strict=True))


def test_a_backbone_that_begins_with_weights_learns_slower_layer_by_layer() -> None:
    method = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), "head": nn.Linear(3, 2)})
    method["predictor"] = nn.Linear(2, 2)
    sgd = OptimizerRecipe(torch.optim.SGD, 1.0, 0.1, WarmupCosine(0), final_weight_decay=0.3)
    built = sgd.build(method, 256, 10, 1, constant=("predictor",), slower=(0.1, 0.5))
    groups = built["optimizer"].param_groups
    name = {id(p): key for key, p in method.named_parameters()}
    rates = {name[id(p)]: group["initial_lr"] for group in groups for p in group["params"]}
    assert rates == pytest.approx(
        {
            "backbone.0.weight": 0.025, "backbone.0.bias": 0.025, "backbone.1.weight": 0.05, "backbone.1.bias": 0.05,
            "head.weight": 1.0, "head.bias": 1.0, "predictor.weight": 1.0, "predictor.bias": 1.0,
        }
    )  # fmt: skip
    for _ in range(9):
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()
    ends = {name[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert ends["backbone.0.weight"] == (0, pytest.approx(0.3))  # the schedules of rate and weight decay are for all
    assert ends["backbone.0.bias"] == (0, 0)
    assert ends["predictor.weight"] == (1.0, pytest.approx(0.3))
    assert sum(len(group["params"]) for group in groups) == 8
    plain = [
        {**group, "params": len(group["params"])} for group in sgd.build(method, 256, 10, 1)["optimizer"].param_groups
    ]
    same = sgd.build(method, 256, 10, 1, slower=(1.0, 1.0))["optimizer"].param_groups
    assert plain == [{**group, "params": len(group["params"])} for group in same]
    for slower, word in (((0.0, 1.0), "share of the rate is 0.0"), ((1.0, 2.0), "layer decay is 2.0")):
        with pytest.raises(UserError, match=word):
            sgd.build(method, 256, 10, 1, slower=slower)
    alone = nn.ModuleDict({"backbone": nn.Linear(3, 3)})
    assert len(sgd.build(alone, 256, 10, 1, slower=(0.1, 1.0))["optimizer"].param_groups) == 2


@pytest.mark.parametrize(
    ("name", "cls", "base_lr"),
    [("lars", LARS, 0.3), ("sgd", torch.optim.SGD, 0.3), ("adamw", torch.optim.AdamW, 3e-3)],
)
@pytest.mark.parametrize("scheduler", ["warmup_cosine", "constant"])
def test_every_yaml_is_built(name: str, cls: type, base_lr: float, scheduler: str) -> None:
    config = {
        "optimizer": OmegaConf.load(CONF / "optimizer" / f"{name}.yaml"),
        "scheduler": OmegaConf.load(CONF / "scheduler" / f"{scheduler}.yaml"),
    }
    for own, expected in ({}, (base_lr, 1e-4)), ({"base_lr": 7.0, "weight_decay": 0.5}, (7.0, 0.5)):
        merged = OmegaConf.merge(config, {"optimizer": own})
        node = OmegaConf.to_container(merged, resolve=True)["optimizer"]  # type: ignore[call-overload, index]
        built = instantiate(node)
        assert isinstance(built, OptimizerRecipe)
        assert (built.base_lr, built.weight_decay) == expected
        optimizer = built.build(net(), 128, 10, 1)["optimizer"]
        assert type(optimizer) is cls
        assert optimizer.param_groups[0]["initial_lr"] == expected[0] / 2
        assert optimizer.param_groups[0]["weight_decay"] == expected[1]


@pytest.mark.parametrize("start", [0.04, 0.0])
def test_the_weight_decay_follows_half_a_cosine_and_biases_have_none(start: float) -> None:
    """DINO's schedule, from the first step to the last; a resumed run goes on with the decay of its step."""
    made = OptimizerRecipe(torch.optim.AdamW, 0.1, start, WarmupCosine(1), final_weight_decay=0.4)
    whole, module = made.build(net(), 256, 20, 2), net()
    seen = []
    for step in range(20):
        weights, rest = whole["optimizer"].param_groups
        assert rest["weight_decay"] == 0
        seen.append(weights["weight_decay"])
        if step == 7:
            state = whole["lr_scheduler"]["scheduler"].state_dict()
            assert not {"decay", "decayed"} & set(state)
            resumed = made.build(module, 256, 20, 2)
            resumed["optimizer"].load_state_dict(whole["optimizer"].state_dict())
            resumed["lr_scheduler"]["scheduler"].load_state_dict(state)
        whole["optimizer"].step()
        whole["lr_scheduler"]["scheduler"].step()
    expected = [start + (0.4 - start) * (1 - math.cos(math.pi * step / 19)) / 2 for step in range(20)]
    assert seen == pytest.approx(expected, abs=1e-12)
    resumed["optimizer"].step()
    resumed["lr_scheduler"]["scheduler"].step()
    assert resumed["optimizer"].param_groups[0]["weight_decay"] == seen[8]
