"""Each published number in conf/experiment belongs to what its recipe builds, or says wherein it does not.

The comment `# expected:` above a recipe is yaml: a list of numbers, each with what it was made with: source, batch
(global), epochs, target (what is predicted), readout (what is evaluated), protocol and resize (the shorter side that
evaluation crops from). `with` holds words of the command line that make the recipe that of the number; `differs` names
what still contradicts, and why. Comments are no part of a config, so no run changes its identity by them.
"""

import re
from typing import Any

import pytest
import yaml

from tests.recipes import CONF, NAMES, composed

FIELDS = ("batch", "epochs", "target", "readout", "resize")  # compared with the recipe
PROTOCOLS = ("online linear", "linear", "kNN", "fine-tuned", "VOC detection", "VOC segmentation")
MEASURES = ("top1", "detect_map", "segment_miou")  # one of them for each number
POOLED = "pooled map"
TARGETS = {
    "barlow_twins": "the other view",
    "byol": "the teacher's other view",
    "data2vec": "MLP outputs of the last {target_blocks} blocks",
    "deepcluster_v2": "the image's cluster",
    "densecl": "the teacher's other view, and its places",
    "dino": "the teacher's class-token scores",
    "dinov2": "the teacher's class-token and patch scores, {heads}, {center}",
    "ibot": "the teacher's class-token and patch scores, {heads}, {center}",
    "ijepa": "the teacher's patch tokens",
    "jigsaw": "which of {projector[out_dim]} orders",
    "mae": "{pixels} pixels, {loss[error]} error",
    "moco": "the teacher's other view",
    "moco_v3": "the teacher's other view",
    "msn": "the teacher's assignment of another view",
    "nnclr": "the other view's nearest neighbour",
    "ressl": "the teacher's relations to the queue",
    "rotation": "which of 4 turns",
    "simclr": "the other view",
    "simmim": "{pixels} pixels, {loss[error]} error",
    "simsiam": "the other view",
    "supcon": "views of the class, L_{loss[form]}",
    "swav": "the other view's code",
    "vicreg": "the other view",
    "wmse": "the other view",
}


def header(name: str) -> list[str]:
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    return [line for line in lines if line.startswith("#")]


def expected(lines: list[str]) -> list[dict[str, Any]]:
    """The list under `# expected:`, read as yaml."""
    start = lines.index("# expected:")
    block = []
    for line in lines[start + 1 :]:
        if not line.startswith("#   "):
            break
        block.append(line.removeprefix("# "))
    return yaml.safe_load("\n".join(block)) or []


def recipe(name: str, *words: str) -> dict[str, Any]:
    """What a recipe builds, in the words of its numbers."""
    config = composed(name, *words)
    values, method = config.values, config.values["method"]
    devices = (
        values["trainer"]["devices"] * values["trainer"]["num_nodes"] * values["trainer"]["accumulate_grad_batches"]
    )
    said = {
        "pixels": "normalised" if (method.get("loss") or {}).get("norm_target") else "raw",
        "heads": "two heads" if method.get("patch_projector") else "one head",
        "center": "moving centre"
        if str((method.get("center") or {}).get("_target_")).endswith(".Center")
        else "Sinkhorn-Knopp",
    }
    return {
        "batch": values["data"]["batch_size"] * devices,
        "epochs": values["trainer"]["max_epochs"],
        "target": TARGETS[config.choices["method"]].format(**{**method, **said}),
        "readout": values["backbone"].get("readout", POOLED),
        "resize": values["data"]["eval_resize"],
    }


def contradictions(name: str, number: dict[str, Any]) -> set[str]:
    found = recipe(name, *number.get("with", ()))
    return {field for field in FIELDS if number[field] != found[field]}


@pytest.mark.parametrize("name", NAMES)
def test_each_expected_number_is_of_this_recipe(name: str) -> None:
    numbers = expected(header(name))
    assert numbers
    for number in numbers:
        (measure,) = set(number) & set(MEASURES)
        assert set(number) - {"with", "differs"} == {measure, "protocol", "source", *FIELDS}
        assert 10 < number[measure] < 100
        assert number["protocol"] in PROTOCOLS
        assert isinstance(number["source"], str)
        assert all(isinstance(why, str) and why for why in number.get("differs", {}).values())
        assert contradictions(name, number) == set(number.get("differs", {}))


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_nothing_else_of_numbers(name: str) -> None:
    """A percentage or a global batch in prose would escape the comparison."""
    lines = header(name)
    prose = " ".join(line for line in lines if not line.startswith("#   "))
    batch = re.search(r"global batch is (\d+)", prose)
    assert batch is None or int(batch[1]) == recipe(name)["batch"]
    assert re.findall(r"\d+\.\d+ ?%", prose) == []


def test_a_number_of_another_recipe_is_found() -> None:
    """Those that stood here: MAE's from batch 256 and raw pixels, DINO's from batch 128, SupCon's with another loss."""
    mae = {"batch": 256, "epochs": 100, "target": "raw pixels, squared error", "readout": "cls", "resize": 256}
    assert contradictions("imagenet/mae", mae) == {"batch", "epochs", "target", "readout"}
    dino = {**expected(header("imagenet/dino"))[1], "batch": 128, "epochs": 200}
    assert contradictions("imagenet/dino", dino) == {"batch", "epochs"}
    supcon = expected(header("cifar10/supcon"))[0]
    assert contradictions("cifar10/supcon", {**supcon, "with": []}) == {"target"}
    half = {**expected(header("imagenet100/simclr"))[0], "with": ["data.batch_size=128"]}
    assert contradictions("imagenet100/simclr", half) == {"batch"}


def test_recipes_without_a_published_number_name_none() -> None:
    others = [path.stem for path in CONF.glob("*.yaml")]
    assert sorted(others) == ["cifar10_cpu", "cpu", "fsdd", "photos"]
