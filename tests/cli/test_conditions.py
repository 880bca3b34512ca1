"""`when:` in a yaml: what holds beside another choice; and what became of `recipe.*`, which it replaces."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_lightning.cli import moved
from ssl_lightning.cli import run as build
from ssl_lightning.cli.run import Config, compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.folder import RunFolder

CONF = Path(__file__).parents[2] / "conf"
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
DATA = sorted(path.stem for path in (CONF / "data").glob("[!_]*.yaml"))


def value(config: dict[str, Any], place: str) -> Any:
    for key in place.split("."):
        config = config[key]
    return config


@pytest.mark.parametrize(
    ("words", "place", "expected"),
    [
        ("method=simclr data=cifar10", "method.projector.hidden_dim", 2048),
        ("method=simclr", "method.projector.hidden_dim", 512),  # shapes brings experiment=cpu
        ("method=simclr data=cifar10 experiment=cpu", "method.projector.hidden_dim", 512),
        ("method=simclr data=cifar10 experiment=cpu method.projector.hidden_dim=7", "method.projector.hidden_dim", 7),
        ("method=simclr data=cifar10", "optimizer.base_lr", 0.4),
        ("method=simclr optimizer=lars", "optimizer.base_lr", 0.4),  # the CPU recipe's rate is AdamW's
        ("method=simclr", "optimizer.base_lr", 3e-3),
        ("method=dino", "optimizer.base_lr", 3e-3),
        ("method=dino data=cifar10", "optimizer.final_weight_decay", 0.4),
        ("method=dino", "optimizer.final_weight_decay", None),
        ("method=mae data=cifar10 backbone=vit_small", "backbone.readout", "mean"),
        ("method=mae data=cifar10 backbone=vit_small", "backbone.patch_size", 4),
        ("method=mae data=stl10", "backbone.patch_size", 8),
        ("method=dino data=folder data.root=x backbone=vit_base", "backbone.readout", "cls"),
        ("method=jigsaw data=stl10", "method.tile_size", 24),
        ("method=jigsaw data=cifar100", "method.tile_size", 8),
        ("method=jigsaw data=folder data.root=x", "method.tile_size", 64),
        ("method=cpc data=stl10", "method.offsets", [2, 4]),
        ("method=cpc experiment=cifar10_cpu data=folder data.root=x", "method.drop_colors", False),
        ("method=barlow_twins", "method.loss.redundancy", 0.05),
        ("method=barlow_twins data=cifar10", "method.loss.redundancy", 0.0051),
        ("method=moco_v3", "method.loss.scaled", True),
        ("method=moco", "method.loss.scaled", False),
        ("method=rotation", "views.global_1.count", 1),
        ("method=rotation", "views.global_1.jitter_p", 0.0),
        ("method=ressl data=cifar10 views=cpu_short", "views.global_2.scale", [0.35, 1.0]),
        ("method=simclr", "views.global_1.count", 2),
        ("experiment=imagenet/jigsaw data.root=x", "method.projector.out_dim", 100),
    ],
)
def test_what_holds_beside_which_choice(words: str, place: str, expected: Any) -> None:
    assert value(compose(words.split()).values, place) == expected


def test_nothing_of_it_is_left_in_the_config() -> None:
    values = compose(["method=cpc"]).values
    assert not {"when", "recipe"} & {key for node in (values, values["method"], values["backbone"]) for key in node}


def test_a_data_yaml_names_no_method() -> None:
    for name in DATA:
        node = yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text())
        assert not {"method", "when", "recipe", "backbone"} & node.keys(), name


@cache
def with_all(method: str) -> Config:
    """The method with everything that its conditions on the optimizer, the network and the views ask for, on a CPU."""
    words = []
    for condition in yaml.safe_load((CONF / "method" / f"{method}.yaml").read_text())["when"]:
        group, _, options = condition.partition("=")
        if group not in ("data", "experiment"):  # `test_conf.py` has all methods on these
            words.append(f"{group}={options.split(',')[0].replace('vit_*', 'vit_tiny')}")
    return compose([f"method={method}", *words])


@pytest.mark.parametrize("method", METHODS)
def test_every_condition_is_met_by_some_choice_and_fits_the_constructors(method: str) -> None:
    """A misspelt key in a block would be seen only where its condition holds: each is made to hold here."""
    build.check(with_all(method))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{optimizer=lras: {seed: 1}}", "'optimizer=lras' names an option that does not exist. Did you mean 'lars'"),
        ("{optimiser=lars: {seed: 1}}", "'optimiser=lars' names an option that does not exist"),
        ("{lars: {seed: 1}}", "'lars' names an option that does not exist"),
        ("{data=shapes: 3}", "data=shapes takes a mapping of keys"),
        ("[1]", "maps conditions to the keys they set"),
        ("${name}", "maps conditions to the keys they set"),
        ("{data=shapes: '${name}'}", "data=shapes takes a mapping of keys"),
        ("{data=shapes: {sead: 1}}", "there is no 'sead'"),
        ("{data=shapes: {method: {projector: {hiden_dim: 1}}}}", "takes no argument 'hiden_dim'"),
        ("{data=shapes: {trusted_packages: [os]}}", "is allowed only on the command line"),
        ("{data=shapes: {hydra: {job: {name: x}}}}", "is allowed only on the command line"),
    ],
)
def test_a_wrong_condition_is_one_line(block: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\nwhen: {block}\n")
    with pytest.raises(UserError) as refused:
        build.check(compose(["experiment=mine"], tmp_path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_users_own_yaml_may_say_when(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    text = "# @package _global_\nwhen:\n  data=shapes: {seed: 5}\n"
    (tmp_path / "method" / "mine.yaml").write_text(text + "  data=*10: {seed: 6}\n")
    assert compose(["method=mine"], tmp_path).values["seed"] == 5
    assert compose(["method=mine", "data=cifar10"], tmp_path).values["seed"] == 6
    assert compose(["method=mine", "data=cifar10", "seed=7"], tmp_path).values["seed"] == 7


# ---- recipe.*


@pytest.mark.parametrize(
    ("typed", "now"),
    [
        ("recipe.head.hidden_dim=8", "method.projector.hidden_dim"),
        ("recipe.head.out_dim=8", "method.projector.out_dim (of dino"),
        ("+recipe.patch_size=16", "backbone.patch_size"),
        ("recipe.decoder.depth=1", "method.decoder.depth (of ijepa: method.predictor)"),
        ("recipe.lars.base_lr=1", "optimizer.base_lr"),
        ("recipe.swav.queue_size=1", "method.queue_size"),
        ("recipe.dino.prototypes=1", "method.projector.out_dim"),
        ("recipe.vit.readout=mean", "backbone.readout"),
        ("recipe.nonsense=1", "each value has its own key"),
        ("~recipe", "each value has its own key"),
    ],
)
def test_an_old_key_names_the_new_one(typed: str, now: str) -> None:
    with pytest.raises(UserError) as refused:
        compose([typed])
    assert now in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_new_key_is_there() -> None:
    """The table names no key that nobody has (`vit` and the optimizers stand for several)."""
    configs = [with_all(name).values for name in METHODS]
    for old, new in moved.RECIPE.items():
        place = new.split(" ")[0]
        found = 0
        for config in configs:
            try:
                value(config, place)
                found += 1
            except (KeyError, TypeError):
                continue
        assert found, (old, new)


def test_a_run_begun_with_a_recipe_goes_on(tmp_path: Path) -> None:
    config = compose(["method=simclr", f"runs_dir={tmp_path}", "name=old"])
    folder = RunFolder(tmp_path / "old")
    folder.open(config.stored)
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "last.ckpt").write_bytes(b"x")
    stored = yaml.safe_load((folder.path / "config.yaml").read_text())
    old = {**stored, "recipe": {"lars": {"base_lr": 0.4}, "head": {"hidden_dim": 512}}}
    (folder.path / "config.yaml").write_text(yaml.safe_dump(old))
    assert RunFolder(folder.path).open(config.stored) == "resumed"
    other = compose(["method=simclr", f"runs_dir={tmp_path}", "name=old", "method.projector.hidden_dim=9"])
    assert "method.projector.hidden_dim: 512 -> 9" in str(RunFolder(folder.path).refusal(other.stored))
