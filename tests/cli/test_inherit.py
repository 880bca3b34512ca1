"""What a config takes from its `ckpt=`: of a run, of a card, and of what a stranger wrote there."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from ssl_lightning.cli import inherit
from ssl_lightning.cli.compose import Config, compose
from ssl_lightning.cli.run import check
from ssl_lightning.config.instantiate import signature_of
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs import known, places
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.runs.folder import flatten

PHOTOS = ["data=folder", "data.root=photos", "data.image_size=48", "data.mean=[0.1,0.2,0.3]", "data.test_fraction=0.2"]
NODE = {"_target_": "ssl_lightning.models.convnet.ConvNetSmall", "width": 3}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@cache
def stored_config(words: tuple[str, ...]) -> dict[str, Any]:
    return compose(words).stored


def a_run(*words: str, **changes: Any) -> str:
    """A run's folder as far as composing looks at it; `changes` are keys of its config, `data__root` is data.root."""
    stored = copy.deepcopy(stored_config(words))
    for key, value in changes.items():
        *path, last = key.split("__")
        node = stored
        for part in path:
            node = node[part]
        node[last] = value
    folder = Path("runs/a")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(places.HEADER + yaml.safe_dump(stored))
    return f"ckpt={folder}"


def test_every_stage_either_trains_a_method_or_judges_a_run() -> None:
    for file in (Path(__file__).parents[2] / "conf" / "stage").glob("*.yaml"):
        node = yaml.safe_load(file.read_text())
        target = node.get("stage", node)["_target_"]
        wanted = {"pretrain": {"method"}, "doctor": {"method"}, "compare": set()}.get(file.stem, {"judged"})
        assert {"judged", "method"} & signature_of(target).params.keys() == wanted, file.stem


def of_data(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.values["data"].items() if key != "views"}


@pytest.mark.parametrize("stage", ["finetune", "export"])
def test_a_stage_is_on_the_data_of_its_run(stage: str) -> None:
    ckpt = a_run(*PHOTOS, "data.batch_size=8", "data.num_workers=0", "seed=3")
    found = compose([f"stage={stage}", ckpt])
    data = found.values["data"]
    assert data["_target_"].endswith("folder.Folder")
    assert (data["root"], data["image_size"], data["mean"]) == ("photos", 48, [0.1, 0.2, 0.3])
    assert (data["test_fraction"], data["seed"]) == (0.2, 3)  # the very images that were held out
    assert (data["batch_size"], data["num_workers"]) == (256, None)  # of the machine and the training
    assert found.values["seed"] == 0
    assert found.choices["data"] == "folder"
    assert found.path == Path(f"runs/a/{stage}-folder")
    (line,) = found.said
    assert line.startswith("as in runs/a: ")
    assert "data.root=photos" in line
    check(found)


def test_a_run_on_the_defaults_says_nothing_and_changes_nothing() -> None:
    ckpt = a_run("data.batch_size=32", "views=byol")
    found, plain = compose(["stage=knn", ckpt]), compose(["stage=knn", "ckpt=elsewhere.pt"])
    assert found.said == ()
    assert {**flatten(found.values), "ckpt": 0, "name": 0} == {**flatten(plain.values), "ckpt": 0, "name": 0}


def test_what_is_typed_wins_and_contradictions_are_said() -> None:
    ckpt = a_run(*PHOTOS)
    found = compose(["stage=knn", ckpt, "data.image_size=64", "data.std=[1,1,1]", "data.test_fraction=0.2"])
    data = found.values["data"]
    assert (data["image_size"], data["std"], data["mean"], data["root"]) == (64, [1, 1, 1], [0.1, 0.2, 0.3], "photos")
    *_, line = found.said
    assert (
        line
        == "not as runs/a was trained: data.image_size=64 (48 there), data.std=[1, 1, 1] ([0.229, 0.224, 0.225] there)"
    )
    again = compose(["stage=knn", ckpt, "seed=5"])
    assert again.values["data"]["seed"] == 5
    assert again.said[-1] == "not as runs/a was trained: data.seed=5 (0 there)"  # other images are held out


def test_other_data_keep_the_network_s_size_and_normalisation_alone() -> None:
    ckpt = a_run(*PHOTOS, "data.labels_per_class=7")
    same = of_data(compose(["stage=knn", ckpt, "data=folder", "data.root=photos"]))
    assert (same["image_size"], same["mean"], same["labels_per_class"]) == (48, [0.1, 0.2, 0.3], None)
    other = of_data(compose(["stage=knn", ckpt, "data=cifar10"]))
    plain = of_data(compose(["data=cifar10"]))
    assert other == {**plain, "image_size": 48, "mean": [0.1, 0.2, 0.3], "std": [0.229, 0.224, 0.225]}


def test_of_two_ways_to_choose_labels_the_typed_one_counts() -> None:
    ckpt = a_run(*PHOTOS, "data.labels_per_class=7")
    data = compose(["stage=finetune", ckpt, "data.label_fraction=0.1"]).values["data"]
    assert (data["label_fraction"], data["labels_per_class"]) == (0.1, None)
    assert compose(["stage=finetune", ckpt]).values["data"]["labels_per_class"] == 7


def test_what_an_experiment_of_the_command_says_of_the_data_counts(tmp_path: Path) -> None:
    ckpt = a_run(*PHOTOS)
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/small.yaml").write_text("# @package _global_\ndata: {image_size: 16}\n")
    (tmp_path / "mine/experiment/other.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: cifar10\n"
    )
    small = compose(["stage=knn", ckpt, "experiment=small"], tmp_path / "mine")
    assert (small.values["data"]["image_size"], small.values["data"]["root"]) == (16, "photos")
    assert "data.image_size=16 (48 there)" in small.said[-1]
    other = compose(["stage=knn", ckpt, "experiment=other"], tmp_path / "mine")
    assert other.choices["data"] == "cifar10"
    assert other.values["data"]["image_size"] == 48


def test_data_of_one_s_own_come_without_their_yaml_and_never_with_trust() -> None:
    own = {"_target_": "mine.data.Slides", "root": "slides", "image_size": 48, "batch_size": 7, "magnification": 20}
    found = compose(["stage=knn", a_run(data=own, choices__data="slides", trusted_packages=["mine"])])
    assert found.values["trusted_packages"] == []
    assert found.path == Path("runs/a/knn-slides")
    data = of_data(found)
    assert (data["_target_"], data["magnification"], data["batch_size"]) == ("mine.data.Slides", 20, 128)
    assert "size" not in data
    with pytest.raises(UserError, match=r"mine\.data\.Slides.* may not be named .*trusted_packages=\[mine\]"):
        check(found)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"data__root": "${oc.env:HOME}"}, r"data\.root of runs/a .* a reference"),
        ({"data__root": "/x/***/y"}, r"data\.root of runs/a was a secret, so it was not stored; give data\.root="),
        ({"data__mean": [0.1, "${oc.env:HOME}", 0.2]}, r"mean that is not a list of numbers"),
        ({"data__labels": {"a": ["${ckpt}"]}}, r"data\.labels of runs/a .* a reference"),
        ({"data__root": "a\x1b[2Jb"}, r"not plain text"),
        ({"data__image_size": 10**9}, "image_size that is not valid"),
        ({"data___target_": "os.system"}, "may not be named in a config"),
        ({"data__prize": 1}, "takes no argument 'prize'"),
        ({"data__views": {"_target_": "os.system"}}, ""),
        ({"choices__data": "../../x", "data___target_": "os.system"}, "give a plain name"),
    ],
)
def test_what_a_stranger_s_run_says_is_checked(changes: dict[str, Any], refusal: str) -> None:
    ckpt = a_run(*PHOTOS, **changes)
    if not refusal:  # views are not taken at all
        assert "os.system" not in str(compose(["stage=knn", ckpt]).values)
        return
    with pytest.raises(UserError, match=refusal) as error:
        check(compose(["stage=knn", ckpt]))
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(("data", "inside"), [("cifar10", "cifar-10-batches-py"), ("stl10", "stl10_binary")])
def test_nothing_is_downloaded_to_where_a_run_says(data: str, inside: str, tmp_path: Path) -> None:
    for name in (data, "unknown"):  # a name that chooses no yaml changes nothing
        found = compose(["stage=knn", a_run(f"data={data}", f"data.root={tmp_path}/theirs", choices__data=name)])
        assert found.values["data"].get("root", "data") == "data"
        assert any(f"had its data in {tmp_path}/theirs, which is not here" in line for line in found.said)
    (tmp_path / "theirs" / inside).mkdir(parents=True)
    found = compose(["stage=knn", a_run(f"data={data}", f"data.root={tmp_path}/theirs")])
    assert found.values["data"]["root"] == f"{tmp_path}/theirs"


def test_a_card_alone_gives_size_and_normalisation_and_known_data(tmp_path: Path) -> None:
    def of(data: str) -> str:
        card = {"image_size": 40, "eval_resize": 46, "mean": [0.1] * 3, "std": [0.2] * 3, "method": "simclr"}
        return exported(tmp_path / data, data=data, **card)

    known = compose(["stage=knn", of("cifar100")])
    assert known.choices["data"] == "cifar100"
    data = known.values["data"]
    assert (data["image_size"], data["eval_resize"], data["std"]) == (40, 46, [0.2] * 3)
    photos = compose(["stage=knn", of("folder")])  # nobody knows where
    assert photos.choices["data"] == "shapes"
    assert photos.values["data"]["image_size"] == 40
    assert photos.said[-1].endswith("learned from data=folder; this is on other data")
    assert compose(["stage=knn", of("../x")]).choices["data"] == "shapes"


def test_timm_s_normalisation_counts_and_the_size_of_networks_that_take_one_alone() -> None:
    vit = compose(["stage=knn", "ckpt=timm:vit_tiny_patch16_224", "data=cifar10"]).values["data"]
    assert (vit["image_size"], vit["mean"]) == (224, [0.5, 0.5, 0.5])
    resnet = compose(["stage=knn", "ckpt=timm:resnet18", "data=cifar10"]).values["data"]
    assert (resnet["image_size"], resnet["mean"]) == (32, [0.485, 0.456, 0.406])


# ---- training from weights ------------------------------------------------------------------------------------------


def test_a_training_takes_the_network_and_the_data_are_the_command_s() -> None:
    ckpt = a_run(*PHOTOS, "backbone=vit_small", "backbone.depth=2", "backbone.patch_size=8", "views=vicreg")
    found = compose([ckpt, "method=dino", "data.image_size=32"])
    node = found.values["backbone"]
    assert (node["dim"], node["depth"], node["patch_size"], node["image_size"]) == (384, 2, 8, 32)
    assert found.choices["backbone"] == "vit_small"
    assert found.choices["data"] == "shapes"
    assert found.stored["ckpt"] == "runs/a"
    changed = compose([ckpt, "method=dino", "backbone.drop_path=0.1"]).values["backbone"]
    assert (changed["drop_path"], changed["depth"]) == (0.1, 2)


def exported(folder: Path, **card: Any) -> str:
    return f"ckpt={save_backbone(ConvNetSmall(3), NODE, folder, **card)}"


def test_a_training_gives_the_weights_the_values_that_they_know(tmp_path: Path) -> None:
    """Mean, std and the range of values: as in their training, unless the command says otherwise."""
    ckpt = exported(tmp_path / "x", image_size=40, mean=[0.1] * 3, std=[0.2] * 3, value_range=[0, 4095], eval_resize=48)
    words = [ckpt, "data=folder", "data.root=photos"]
    data = compose(words).values["data"]
    assert (data["mean"], data["std"], data["value_range"]) == ([0.1] * 3, [0.2] * 3, [0, 4095])
    assert (data["image_size"], data["eval_resize"]) == (224, None)  # the network is built for the size of these images
    assert "data.value_range=[0, 4095]" in compose(words).said[0]
    found = compose([*words, "data.mean=[0.3,0.3,0.3]", "data.value_range=[0,255]"])
    assert (found.values["data"]["mean"], found.values["data"]["value_range"]) == ([0.3] * 3, [0, 255])
    assert "data.mean=[0.3, 0.3, 0.3] ([0.1, 0.1, 0.1] there)" in found.said[-1]
    assert "data.value_range=[0, 255] ([0, 4095] there)" in found.said[-1]
    again = compose([*words, "backbone=resnet18"]).values["data"]
    assert again["mean"] == [0.1] * 3
    shapes = compose([ckpt]).values["data"]  # 8 bits by their nature: there is no such key
    assert shapes["mean"] == [0.1] * 3
    assert "value_range" not in shapes


def test_a_training_on_images_of_other_channels_is_refused_by_its_network(tmp_path: Path) -> None:
    grey = exported(tmp_path / "x", mean=[0.1], std=[0.2], channels=1)
    assert compose([grey, "data=folder", "data.root=photos"]).values["data"]["channels"] == 1
    assert compose([grey, "data=cifar10"]).values["data"]["mean"] == compose(["data=cifar10"]).values["data"]["mean"]


def test_a_training_begun_with_other_values_goes_on_with_them(tmp_path: Path) -> None:
    """Earlier versions left the mean to the data."""
    ckpt = exported(tmp_path / "x", mean=[0.1] * 3, std=[0.2] * 3)
    words = [ckpt, "data=cifar10", "name=a"]
    before = a_run(*words, "data.mean=[0.4,0.4,0.4]")
    assert compose(words).values["data"]["mean"] == [0.4] * 3
    assert compose([*words, "resume=never"]).values["data"]["mean"] == [0.1] * 3
    assert compose([*words[:2], "name=b"]).values["data"]["mean"] == [0.1] * 3
    assert before == "ckpt=runs/a"


def test_a_typed_backbone_wins_over_the_card_s() -> None:
    ckpt = a_run("backbone=vit_small")
    assert compose([ckpt, "backbone=resnet18"]).values["backbone"]["name"] == "resnet18"
    assert compose([ckpt, "backbone=vit_tiny"]).values["backbone"] == compose(["backbone=vit_tiny"]).values["backbone"]


def test_timm_and_torchvision_name_their_network() -> None:
    found = compose(["ckpt=timm:vit_tiny_patch16_224", "method=dino"])
    node = {"name": "vit_tiny_patch16_224", "image_size": 32, "pretrained": False}
    assert found.values["backbone"] == {"_target_": "ssl_lightning.models.timm.timm_backbone", **node}
    assert compose(["ckpt=torchvision:resnet34"]).values["backbone"]["name"] == "resnet34"


def test_a_stranger_s_card_names_encoders_alone(tmp_path: Path) -> None:
    save_backbone(ConvNetSmall(3), {"_target_": "torch.nn.Linear", "in_features": 9}, tmp_path / "x")
    with pytest.raises(UserError, match=r"names 'torch\.nn\.Linear', which is no encoder of ours"):
        compose([f"ckpt={tmp_path}/x/backbone.safetensors"])
    with pytest.raises(UserError, match="no encoder of ours"):
        compose([a_run(backbone={"_target_": "mine.Net", "width": 3}, trusted_packages=["mine"])])
    trusted = compose([a_run(backbone={"_target_": "mine.Net", "width": 3}), "trusted_packages=[mine]"])
    assert trusted.values["backbone"] == {"_target_": "mine.Net", "width": 3}


def test_a_training_goes_on_although_its_first_weights_are_gone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = save_backbone(ConvNetSmall(3), NODE, tmp_path / "x")
    words = [f"ckpt={file}", "name=a"]
    begun = compose(words)
    a_run(*words)
    file.unlink()
    assert compose(words).stored == begun.stored
    assert compose([*words, "backbone=resnet18"]).values["backbone"]["name"] == "resnet18"
    assert compose([f"ckpt={file}", "name=b"]).values["backbone"]["width"] == 48  # says so when it begins


@pytest.mark.parametrize("metadata", ["[1]", '"x"', "5", "null", '{"card": 5}'])
def test_a_head_that_says_nothing(tmp_path: Path, metadata: str) -> None:
    head = f'{{"__metadata__": {metadata}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    assert known.of(str(tmp_path / "x.safetensors")) is None


@pytest.mark.parametrize("key", [None, 5, "a\nb", "\x1b[31m"])
def test_a_key_that_is_no_word(key: Any) -> None:
    with pytest.raises(UserError, match="data of runs/x has a key that is not a word"):
        inherit._put(OmegaConf.create({"data": {}}), "data", {key: 1}, known.Known("runs/x"))


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ((), "Regress"),
        (("data.label_column=age",), "Regress"),
        (("task=classify", "data.label_column=age"), "Classify"),
        (("task=multilabel",), "MultiLabel"),
        (("data.labels=other.csv",), "Classify"),
        (("data=shapes",), "Classify"),
    ],
)
def test_a_stage_takes_the_labels_as_the_run_did(words: tuple[str, ...], task: str) -> None:
    ckpt = a_run(*PHOTOS, "task=regress", "data.labels=ages.csv")
    for stage in ("knn", "embed"):
        config = compose((f"stage={stage}", ckpt, *words))
        assert config.values["task"]["_target_"].endswith(f".{task}")
    check(config)


def test_a_stage_that_reads_no_labels_takes_no_task() -> None:
    check(compose(("stage=export", a_run(*PHOTOS, "task=regress", "data.labels=ages.csv"))))
