"""stage=export: the backbone as a safetensors file and a JSON card, for code that does not have this package."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ssl_lightning.core.distributed import barrier, is_main
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.data.base import DataModule
from ssl_lightning.runs.card import TIMM_OURS
from ssl_lightning.runs.checkpoint import save_atomic, save_backbone
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages import opening
from ssl_lightning.stages.common import Judged, Stopwatch, report

OF_THE_FILE = ("backbone", "out_dim")  # of a card: said anew


def run(judged: Judged, data: DataModule, run: RunFolder) -> dict[str, Any]:
    """Writes `backbone.safetensors`, with the keys of torchvision's or timm's own model, and `backbone.json`.

    The card tells the backbone, its width, image size and normalisation, the file's sha256, and the lines that load it.
    A weights file that has no card of its own gets the configured backbone and the data's normalisation.
    """
    watch = Stopwatch()
    opening.of_backbone(judged.backbone, judged.method, None, None)
    node = judged.card["backbone"]
    card = data.card()
    card |= {key: value for key, value in judged.card.items() if key not in OF_THE_FILE and value is not None}
    file, parameters = run.path / "backbone.safetensors", sum(p.numel() for p in judged.backbone.parameters())
    if is_main():
        save_backbone(judged.backbone, node, run.path, **card)
        card |= {"backbone": node, "out_dim": out_dim(judged.backbone), "parameters": parameters}
        card |= {"file": file.name, "sha256": sha256(file), "load": loading_lines(node, file.name)}
        text = json.dumps(card, indent=2) + "\n"
        save_atomic(lambda temporary: temporary.write_text(text), run.path / "backbone.json")
    barrier()
    return report(
        judged, watch,
        data=str(judged.card.get("data") or "unknown"),  # what it learned from: no image is looked at here
        files=[str(file), str(run.path / "backbone.json")],
        out_dim=out_dim(judged.backbone),
        parameters=parameters,
    )  # fmt: skip


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
