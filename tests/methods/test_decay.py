"""Which parameters have weight decay: for each method those of the authors' code, and in an old run those it had."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.methods.simmim import SimMIM
from ssl_lightning.modalities.image.views import View, Views
from ssl_lightning.models.timm import timm_backbone
from ssl_lightning.models.vit import ViT
from ssl_lightning.optim.param_groups import spared_names, split_decay
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.finetuner import Finetuner
from tests.callbacks.toy import trainer_of
from tests.methods.harness import METHODS, config_of, tiny_method
from tests.stages.tiny_run import TinyData
from tests.tasks.test_finetuner import FakeTrainer

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


# ---- fine-tuning


def mae_s(name: str, ndim: int, depth: int) -> tuple[int, bool]:
    """(layer, whether it is decayed) in MAE's util/lr_decay.py, with the names that timm's ViT spares."""
    spared = ndim == 1 or name in ("pos_embed", "cls_token", "dist_token", "reg_token")
    if name in ("cls_token", "pos_embed", "reg_token") or name.startswith("patch_embed"):
        return 0, not spared
    return (int(name.split(".")[1]) + 1 if name.startswith("blocks") else depth + 1), not spared


NETWORKS = {
    "ours": lambda: ViT(image_size=16, patch_size=8, dim=12, depth=3, heads=1, registers=2, layer_scale=1e-5),
    "timm's": lambda: timm_backbone("vit_tiny_patch16_224", image_size=32, depth=3, embed_dim=12, num_heads=1),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_fine_tuning_decays_what_mae_decays_at_mae_s_rates(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last norm aside, which learns with the last block here and with the head there."""
    module = Finetuner(NETWORKS[network](), Classify.of(3), recipe(), layer_decay=0.5)
    module.setup("fit")
    monkeypatch.setattr(Finetuner, "trainer", FakeTrainer())
    groups = module.configure_optimizers()["optimizer"].param_groups
    found = {id(p): (group["initial_lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == len(list(module.parameters()))
    peak = found[id(module.head.weight)][0]
    for name, p in module.backbone.named_parameters():
        layer, decayed = mae_s(name, p.ndim, depth=3)
        rate = peak * 0.5 ** (4 - (3 if name.startswith("norm.") else layer))
        assert found[id(p)] == (pytest.approx(rate), 0.5 if decayed else 0.0), name


def test_what_no_network_names_itself_is_spared_by_its_name_alone() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.ParameterDict({"pos_embed": torch.zeros(1, 2, 3), "embed": torch.zeros(2, 3)})

    assert spared_names(Wrapped()) == {"net.pos_embed"}


class OldFinetuner(Finetuner):
    """Before positions were spared."""

    def setup(self, stage: str) -> None:
        pass


@pytest.mark.parametrize("old", [True, False])
def test_a_fine_tuning_goes_on_with_the_decay_it_began_with(old: bool, tmp_path: Path) -> None:
    def train(kind: type[Finetuner], epochs: int, ckpt: Path | None = None) -> tuple[Finetuner, list[dict[str, Any]]]:
        torch.manual_seed(0)
        module = kind(
            ViT(image_size=4, patch_size=2, dim=12, depth=1, heads=1), Classify.of(3), recipe(), layer_decay=0.5
        )
        trainer = trainer_of(tmp_path, [Checkpoint(tmp_path)], max_epochs=epochs, limit_val_batches=0)
        data = TinyData(views=Views(View(4, count=1)), image_size=4, num_workers=0)
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
        return module, trainer.optimizers[0].param_groups

    train(OldFinetuner if old else Finetuner, 1)
    module, groups = train(Finetuner, 2, tmp_path / "checkpoints" / "last.ckpt")
    assert [group["name"] for group in groups][:2] == ["block 0"] * 2
    decayed = {id(p) for p in groups[0]["params"]}
    for p in (module.backbone.pos_embed, module.backbone.cls_token):
        assert (id(p) in decayed) is old
