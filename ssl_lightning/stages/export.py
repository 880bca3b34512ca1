"""stage=export: the backbone in files for code without this package: safetensors, ONNX, a folder for timm.

Of a run that was trained on labels the model goes with it: the head, and the names of the classes.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ssl_lightning.core import files
from ssl_lightning.core.distributed import barrier, is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import say
from ssl_lightning.modalities.feeding import NoTransform, transform_of
from ssl_lightning.runs.card import TIMM_OURS
from ssl_lightning.runs.checkpoint import FILE, save_backbone
from ssl_lightning.runs.folder import RunFolder, find_run
from ssl_lightning.runs.model import Model, folded, has_model, restored_model, save_model
from ssl_lightning.stages import export_hf, export_onnx
from ssl_lightning.stages.common import Judged, Stopwatch, report
from ssl_lightning.stages.opening import tell_backbone

OF_THE_FILE = ("backbone", "out_dim")  # of a card: said anew
Format = Literal["safetensors", "onnx", "hf"]


def run(
    judged: Judged, data: DataModule, run: RunFolder, formats: Sequence[Format] = ("safetensors",)
) -> dict[str, Any]:
    """Writes `backbone.json`, a card, and of each format its file: all of them, or none where one fails.

    The card tells the backbone, its width, image size and normalisation, the file's sha256, and the lines that load it.
    A weights file that has no card of its own gets the configured backbone and the data's normalisation.

    Of a run of stage=finetune or stage=linear there are `model.safetensors` and `model.onnx`, too, from input to
    outputs, and the network in `hf` has the classifier.

    Args:
        formats: "safetensors": `backbone.safetensors`, with the keys of torchvision's or timm's own model. "onnx":
            `backbone.onnx`, for any number of items, compared with torch. "hf": the folder `hf`, which
            `timm.create_model("local-dir:FOLDER", pretrained=True)` loads; networks that timm has alone.
    """
    watch = Stopwatch()
    if "onnx" in formats:
        export_onnx.need_packages()
    model = restored_model(judged.ref, judged.trusted) if has_model(judged.ref) else None
    tell_backbone(judged.backbone, judged.method)
    card = data.card()
    card |= {key: value for key, value in judged.card.items() if key not in OF_THE_FILE and value is not None}
    card["backbone"] = judged.card["backbone"]
    parameters, found, names = sum(p.numel() for p in judged.backbone.parameters()), dict[str, Any](), list[str]()
    if is_main():
        with files.all_or_none(run.path) as folder:
            found, names = _written(judged, model, card, formats, folder)
            told = card | {"out_dim": out_dim(judged.backbone), "parameters": parameters}
            told |= {} if model is None else {"classes": model.classes, "task": model.task.described()["node"]}
            if "safetensors" in formats:
                file = folder / FILE
                lines = loading_lines(card["backbone"], file.name)
                told |= {"file": file.name, "sha256": sha256(file), "load": lines}
            (folder / "backbone.json").write_text(json.dumps(told | found, indent=2) + "\n")
    barrier()
    return report(
        judged, watch,
        data=str(judged.card.get("data") or "unknown"),  # what it learned from: no image is looked at here
        files=[str(run.path / name) for name in [*names, "backbone.json"]],
        out_dim=out_dim(judged.backbone),
        parameters=parameters,
        **found,
    )  # fmt: skip


def _written(
    judged: Judged, model: Model | None, card: dict[str, Any], formats: Sequence[Format], folder: Path
) -> tuple[dict[str, Any], list[str]]:
    """(what there is to say of each format, the names of the files); those of the model stand first."""
    found, names = dict[str, Any](), list[str]()
    if "safetensors" in formats:
        if model is not None:
            names.append(save_model(model, card, folder).name)
        rest = {key: value for key, value in card.items() if key != "backbone"}
        names.append(save_backbone(judged.backbone, card["backbone"], folder, **rest).name)
    if "onnx" in formats:
        if model is not None:
            names.append("model.onnx")
            kind = "logits" if model.task.reads in ("classes", "several") else "outputs"
            found["onnx_model"] = export_onnx.write(model, _shape(card), folder / names[-1], kind, model.classes)
        names.append("backbone.onnx")
        found["onnx"] = export_onnx.write(judged.backbone, _shape(card), folder / names[-1])
    if "hf" in formats:
        names.append("hf")
        found["hf"] = export_hf.write(judged.backbone, card, _results(judged), folder / "hf", _classifier(model))
    for kind, written in found.items():
        what = "outputs" if "classes" in written else "features"
        say(f"{kind.removesuffix('_model')}: its {what} are at most {written['max_difference']:.1g} from torch's")
    return found, names


def _classifier(model: Model | None) -> export_hf.Classifier | None:
    """The head as one linear layer from features to logits of classes; None where it is none."""
    if model is None:
        return None
    linear = folded(model)
    if linear is None or model.task.reads not in ("classes", "several"):
        say("hf: the head is no linear layer to classes or labels; the folder has the backbone alone.")
        return None
    return export_hf.Classifier(*linear, model.classes)


def _shape(card: dict[str, Any]) -> tuple[int, ...]:
    """Of one input of the network."""
    transform = transform_of(card)
    if isinstance(transform, NoTransform):
        raise UserError(f"onnx needs the size of the input: {transform.why}")
    return tuple(transform.shape)


def _results(judged: Judged) -> dict[str, Any]:
    """results.json of the run that the weights are of; empty where there is none."""
    run = find_run(judged.ref)
    return (RunFolder(run).results() or {}) if run else {}


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def loading_lines(node: dict[str, Any], file: str) -> list[str]:
    """Python that builds `net` and loads the file, with torchvision or timm alone where that is possible."""
    load = f'net.load_state_dict(safetensors.torch.load_file("{file}"))'
    name, channels = node.get("name"), node.get("in_channels", 3)
    if node["_target_"] == "ssl_lightning.models.resnet.resnet":
        lines = ["import safetensors.torch, torch, torchvision", f"net = torchvision.models.{name}()"]
        if node.get("stem") == "cifar":
            lines.append(f"net.conv1 = torch.nn.Conv2d({channels}, 64, kernel_size=3, stride=1, padding=1, bias=False)")
            lines.append("net.maxpool = torch.nn.Identity()")
        elif channels != 3:
            lines.append(f"net.conv1 = torch.nn.Conv2d({channels}, 64, kernel_size=7, stride=2, padding=3, bias=False)")
        return [*lines, "net.fc = torch.nn.Identity()", load]
    if node["_target_"] == "ssl_lightning.models.timm.timm_backbone":
        arguments = {key: value for key, value in node.items() if key not in TIMM_OURS}
        if channels != 3:
            arguments = {"in_chans": channels, **arguments}
        if _fixed_size(str(name)) and node.get("image_size"):
            arguments = {"img_size": node["image_size"], **arguments}
        given = "".join(f", {key}={value!r}" for key, value in arguments.items())
        return ["import safetensors.torch, timm", f'net = timm.create_model("{name}", num_classes=0{given})', load]
    return ["from ssl_lightning import load_backbone", f'net = load_backbone("{file}")']


def _fixed_size(name: str) -> bool:
    """Does timm build this network for one image size?"""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return config is not None and bool(config.fixed_input_size)
