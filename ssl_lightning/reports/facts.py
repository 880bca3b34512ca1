"""Facts of a run that neither its config nor its results say, in plain values for `report.npz`."""

import platform
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_lightning import __version__
from ssl_lightning.core import secrets

CLASSES = 2000  # names that are kept
LOOKED_AT = 256  # items whose values are measured


def of_data(data: Any) -> dict[str, Any]:
    """Kind, class names and counts of a data module; of one of the user's own what it has."""
    found = {"modality": getattr(data, "modality", ""), "noun": getattr(data, "noun", "item")}
    for name, key in (("train_set", "train_count"), ("test_set", "test_count"), ("probe_set", "probe_count")):
        items = getattr(data, name, None)
        if items is not None and hasattr(items, "__len__"):
            found[key] = len(items)
    classes = getattr(getattr(data, "test_set", None), "classes", ()) or ()
    found["classes"] = [str(name) for name in list(classes)[:CLASSES]]
    found["labelled"] = bool(getattr(data, "has_labels", False))
    return found


def of_network(network: Any) -> dict[str, Any]:
    """Parameters and width of a module; nothing of what is none."""
    if not hasattr(network, "parameters"):
        return {}
    backbone = getattr(network, "backbone", network)
    found: dict[str, Any] = {"network": type(backbone).__name__}
    found["backbone_parameters"] = sum(p.numel() for p in backbone.parameters())
    if backbone is not network:
        found["parameters"] = sum(p.numel() for p in network.parameters())
    if isinstance(getattr(backbone, "out_dim", None), int):
        found["out_dim"] = backbone.out_dim
    return found


def of_command(words: Sequence[str]) -> dict[str, Any]:
    """The words of a command line, without secrets; nothing where none are known."""
    return {"command": [secrets.hide(str(word)) for word in words]} if words else {}


def of_versions() -> dict[str, Any]:
    """What it is computed with."""
    return {"versions": {"ssl_lightning": __version__, "torch": torch.__version__, "python": platform.python_version()}}


def of_device(device: torch.device, world: int = 1) -> dict[str, Any]:
    """What it is computed on, in how many processes."""
    return {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device), "world": world}


def of_inputs(views: Iterable[Any]) -> dict[str, Any]:
    """Mean and standard deviation of what the network is fed, over all values of some views."""
    values = [view.detach().float().flatten().cpu() for view, _ in zip(views, range(LOOKED_AT)) if _is_normalised(view)]
    if not values:
        return {}
    flat = torch.cat(values)
    return {"input_mean": round(float(flat.mean()), 4), "input_std": round(float(flat.std()), 4)}


def _is_normalised(view: Any) -> bool:
    return isinstance(view, Tensor) and view.is_floating_point() and view.ndim >= 3
