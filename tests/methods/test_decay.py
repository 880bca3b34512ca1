"""Which parameters have weight decay: for each method those of the authors' code, and in an old run those it had."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.data.views import View, Views
from ssl_lightning.instantiate import instantiate
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.methods.simmim import SimMIM
from ssl_lightning.optim.param_groups import split_decay
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from tests.callbacks.toy import trainer_of
from tests.methods.harness import METHODS, config_of, tiny_method
from tests.stages.tiny_run import TinyData

SPARED = (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)
TOKENS, HEAD = {"backbone.cls_token", "backbone.pos_embed"}, {"projector.prototypes", "projector.scale"}
# What is decayed beside the weights of linear and convolutional layers. The authors' rules:
# MAE, I-JEPA, MSN, DINO and iBOT spare biases and what has one dimension; there a mask token has two or three, and the
# scale of DINO's last layer is a column. SimMIM and data2vec spare the class token and positions as well, MSN its
# prototypes, and DINOv2 names with `norm` and `gamma`. MAE's and I-JEPA's positions are fixed.
BESIDE: dict[str, set[str]] = {
    "mae": {"backbone.cls_token", "decoder.mask_token"},
    "simmim": {"mask_token"},
    "data2vec": {"mask_token"},
    "ijepa": {"backbone.cls_token", "predictor.mask_token"},
    "dino": TOKENS | HEAD,
    "ibot": TOKENS | HEAD | {"mask_token"},
    "dinov2": TOKENS | HEAD | {"mask_token", "patch_projector.prototypes", "patch_projector.scale"},
    "msn": TOKENS,
}
AS_AUTHORS: dict[str, tuple[str, ...]] = {"dino": ("backbone=vit_small",)} | dict.fromkeys(("ibot", "dinov2"), ())
AS_AUTHORS = {name: (*words, "method.projector.learned_scale=true") for name, words in AS_AUTHORS.items()}


def recipe(**more: Any) -> OptimizerRecipe:
    return OptimizerRecipe(partial(torch.optim.AdamW), 0.1, 0.5, WarmupCosine(1), **more)


def built(name: str) -> SSLMethod:
    """As its yaml builds it, without memory."""
    config = config_of(name, AS_AUTHORS.get(name, ()))
    with torch.device("meta"):
        return instantiate(config["method"], backbone=instantiate(config["backbone"]))


@pytest.mark.parametrize("name", METHODS)
def test_weight_decay_is_the_authors(name: str) -> None:
    method = built(name)
    layers = {
        f"{place}.weight"
        for place, module in method.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.GRU) and module.weight.requires_grad
    }
    assert method.decayed_parameters() == layers | BESIDE.get(name, set())
    spared = {n for n, p in method.named_parameters() if p.requires_grad} - method.decayed_parameters()
    of_norms = {
        f"{place}.{n}" for place, module in method.named_modules() if isinstance(module, SPARED)
        for n, _ in module.named_parameters()
    }  # fmt: skip
    odd = {n for n in spared if not n.endswith("bias") and n not in of_norms and ".ls" not in n}
    assert odd == {"simmim": TOKENS, "data2vec": TOKENS, "msn": {"prototypes"}}.get(name, set())


@pytest.mark.parametrize("name", sorted(BESIDE))
def test_the_optimizer_gets_these_groups(name: str) -> None:
    method = built(name)
    groups = recipe().build(method, 256, 10, 5, decayed=method.decayed_parameters())["optimizer"].param_groups
    names = {id(p): n for n, p in method.named_parameters()}
    found = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in groups}
    assert found == {
        0.5: set(method.decayed_parameters()),
        0.0: {n for n, p in method.named_parameters() if p.requires_grad} - method.decayed_parameters(),
    }


def test_a_strategy_that_flattens_and_renames_tensors_changes_nothing() -> None:
    """FSDP hands out flat pieces of the weights under longer names."""
    method = tiny_method("mae")
    chosen = method.decayed_parameters()
    flat = [
        (n.replace("backbone.", "backbone._fsdp_wrapped_module."), nn.Parameter(p.detach().flatten(), p.requires_grad))
        for n, p in method.named_parameters()
    ]
    weights, _ = split_decay(flat, chosen)
    assert sum(p.numel() for p in weights["params"]) == sum(method.get_parameter(n).numel() for n in chosen)
    assert len(weights["params"]) == len(chosen)


def test_biases_and_norms_are_decayed_where_the_recipe_says_so() -> None:
    """As with one plain optimizer over all parameters. LARS still leaves them unadapted."""
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    groups = recipe(decay_biases=True, final_weight_decay=0.9).build(net, 256, 2, 1)["optimizer"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5]
    assert [group.get("adapt", True) for group in groups] == [True, False]


class Old(SimMIM):
    """Before a method could name its parameters."""

    decayed = not_decayed = ()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        del checkpoint["decayed"]


@pytest.mark.parametrize("old", [True, False])
def test_a_run_goes_on_with_the_decay_it_began_with(old: bool, tmp_path: Path) -> None:
    def train(old: bool, epochs: int, ckpt: Path | None = None) -> Any:
        method = tiny_method("simmim").float()
        method.__class__ = Old if old else SimMIM
        method.optimizer_recipe = recipe()
        trainer = trainer_of(tmp_path, [Checkpoint(tmp_path)], max_epochs=epochs, limit_val_batches=0)
        data = TinyData(views=Views(View(4)), image_size=4, num_workers=0)
        trainer.fit(method, data, ckpt_path=ckpt, weights_only=True)
        return method, trainer.optimizers[0].param_groups

    train(old, 1)
    method, groups = train(False, 2, tmp_path / "checkpoints" / "last.ckpt")
    spared = {id(p) for p in groups[1]["params"]}
    assert (id(method.mask_token) in spared) is old
    assert (id(method.backbone.pos_embed) in spared) is not old
