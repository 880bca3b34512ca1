"""Every yaml under conf/ is composed, checked and built."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_lightning.cli import run as build
from ssl_lightning.cli.run import Config, Parts, compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.runs.folder import RunFolder
from tests.methods.harness import needs_vit

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(path for path in CONF.rglob("*.yaml") if path.parent != CONF and not path.stem.startswith("_"))
OPTIONS = sorted(f"{path.parent.relative_to(CONF)}={path.stem}" for path in FILES)
# An option that is a choice inside one method goes with that method.
METHOD_OF = {"masked_pixels": "mae", "sup_con": "supcon", "sig_reg": "lejepa", "w_mse": "wmse", "info_nce": "moco"}
METHOD_OF |= {name: name for name in ("byol", "barlow_twins", "vicreg", "tico", "ressl", "swav", "dino", "msn", "cpc")}
METHOD_OF |= {"color": "colorization", "sup_con_in": "supcon"}
WITH = {f"method/loss={loss}": [f"method={method}"] for loss, method in METHOD_OF.items()}
WITH["method/loss=color_regression"] = ["method=colorization", "method.bins=null"]


def overrides_of(option: str) -> list[str]:
    group, name = option.split("=")
    if group.startswith("experiment/"):  # experiment/cifar10=moco is written experiment=cifar10/moco
        group, name = "experiment", f"{group.removeprefix('experiment/')}/{name}"
    if option == "method/loss=masked_patches":  # of two losses the second
        return ["method=ibot", "method/loss@method.patch_loss=masked_patches"]
    own = option in ("data=folder", "data=array", "data=audio", "data=audio_wave", "data=voc")
    own = own or option in ("experiment=fsdd", "experiment=photos")
    own = own or "imagenet" in option or option.startswith("experiment/voc")
    needed = ["data.root=photos"] if own else []
    needed += ["data.root=photos", "data.annotations=boxes.json"] if option == "data=coco" else []
    if option.startswith("views=audio"):
        needed = ["data=audio_wave", "data.root=sounds"] if "wave" in option else ["data=tones"]
    return [f"{group}={name}", *WITH.get(option, []), *needed]


def parts_of(config: Config, folder: Path) -> Parts:
    build.check(config)
    return Parts(config, RunFolder(folder))


def test_there_are_options_in_every_group() -> None:
    groups = {option.split("=")[0].split("/")[0] for option in OPTIONS}
    assert groups >= {
        "method", "backbone", "views", "data", "optimizer", "scheduler", "stage", "trainer", "callbacks", "logger",
        "experiment", "debug",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # a trainer asked for a GPU that is not there is not this test's matter
@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_builds(option: str, tmp_path: Path) -> None:
    config = compose([*overrides_of(option), f"runs_dir={tmp_path}"])
    parts = parts_of(config, tmp_path)
    # A network of a paper's size takes seconds to draw its weights, and says no more than one without.
    with torch.device("meta" if option.startswith(("experiment/imagenet", "experiment/voc")) else "cpu"):
        method = parts.method
    assert isinstance(method, SSLMethod)
    assert isinstance(method.backbone, nn.Module)
    assert method.backbone.out_dim > 0
    assert method.optimizer_recipe is not None
    data = parts.data
    assert data.batch_size == config.values["data"]["batch_size"]
    if option not in ("trainer=gpu", "trainer=ddp") and "bf16" not in str(config.values["trainer"]["precision"]):
        trainer = parts.trainer(logger=False)
        assert trainer.max_epochs == config.values["trainer"]["max_epochs"]


def test_no_arguments_is_the_demo() -> None:
    config = compose([])
    assert {key: config.choices[key] for key in ("method", "data", "backbone", "stage")} == {
        "method": "simclr", "data": "shapes", "backbone": "convnet_small", "stage": "pretrain",
    }  # fmt: skip
    assert config.path == Path("runs/simclr-shapes")


PIXELS = ("colorization", "cpc", "data2vec", "dino", "dinov2", "ibot", "ijepa", "jigsaw", "mae", "msn")
PIXELS += ("relative_position", "rotation", "simmim", "swav")


@pytest.mark.parametrize("data", ["shapes", "cifar10", "cifar100", "stl10"])
@pytest.mark.parametrize("method", PIXELS)
def test_sizes_in_pixels_fit_small_images(method: str, data: str, tmp_path: Path) -> None:
    """Patches, tiles, masks and crops have sizes in pixels: those that the papers have for 224 do not fit 32."""
    thin = ["backbone.dim=32", "backbone.heads=2", "backbone.depth=1"] if needs_vit(method) else []
    config = compose([f"method={method}", f"data={data}", f"runs_dir={tmp_path}", *thin])
    parts = parts_of(config, tmp_path)
    views = instantiate(config.values["views"])
    parts.method.accept([view.size for view in views.list()], views.roles())


@pytest.mark.parametrize("method", ["cpc", "relative_position"])
def test_tiles_of_cifars_photographs_keep_their_colours(method: str) -> None:
    """docs/results.md has what either choice brings; what a paper does is the default elsewhere."""
    folder = ["experiment=cifar10_cpu", "data=folder", "data.root=photos"]
    cifar10, cifar100, stl10 = ["data=cifar10"], ["data=cifar100"], ["data=stl10"]
    for words, dropped in (cifar10, False), (cifar100, False), (folder, False), (stl10, True):
        assert compose([f"method={method}", *words]).values["method"]["drop_colors"] is dropped
    assert compose([f"method={method}"]).values["method"]["drop_colors"] is True


def test_a_methods_recipe_goes_with_its_optimizer_only() -> None:
    """BYOL's rate of 1.0 is LARS's: another optimizer gets its own default."""
    assert compose(["method=byol", "data=cifar10"]).values["optimizer"]["base_lr"] == 1.0
    assert compose(["method=byol", "data=cifar10", "optimizer=adamw"]).values["optimizer"]["base_lr"] < 0.01
    assert compose(["method=byol", "data=cifar10", "optimizer.base_lr=0.7"]).values["optimizer"]["base_lr"] == 0.7


def test_published_recipes_are_the_published_numbers() -> None:
    expected = {
        "simclr": ("lars", 0.4, 1e-4), "moco": ("sgd", 0.3, 1e-4), "byol": ("lars", 1.0, 1e-5),
        "moco_v3": ("lars", 0.3, 1e-6), "simsiam": ("sgd", 0.5, 1e-5), "barlow_twins": ("lars", 0.3, 1e-4),
        "vicreg": ("lars", 0.3, 1e-4), "swav": ("lars", 0.6, 1e-6), "nnclr": ("lars", 0.4, 1e-5),
        "ressl": ("sgd", 0.05, 1e-4), "supcon": ("sgd", 0.4, 1e-5), "wmse": ("adam", 2e-3, 1e-6),
        "deepcluster_v2": ("lars", 0.6, 1e-6),
    }  # fmt: skip
    for name, (optimizer, lr, decay) in expected.items():
        config = compose([f"experiment=cifar10/{name}"])
        assert config.choices["optimizer"] == optimizer
        assert config.values["optimizer"]["base_lr"] == lr
        assert config.values["optimizer"]["weight_decay"] == decay
        assert config.values["backbone"]["stem"] == "cifar"
        assert config.values["data"]["batch_size"] == 256
        assert config.values["trainer"]["max_epochs"] == 1000
        assert config.values["scheduler"]["warmup_epochs"] == 10


def test_the_command_line_wins_over_the_experiment() -> None:
    config = compose(["experiment=cifar10_cpu", "method=moco", "optimizer=sgd", "trainer.max_epochs=2"])
    assert config.choices["optimizer"] == "sgd"
    assert config.choices["method"] == "moco"
    assert config.values["trainer"]["max_epochs"] == 2
