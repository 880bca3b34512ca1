"""How methods, metrics and other things of a run are called on a page."""

import shlex
from collections.abc import Mapping
from typing import Any

from ssl_lightning.core import secrets
from ssl_lightning.core.words import is_share
from ssl_lightning.reports.axes import number

METHODS = {
    "simclr": "SimCLR", "moco": "MoCo v2", "moco_v1": "MoCo v1", "moco_v3": "MoCo v3", "byol": "BYOL", "dcl": "DCL",
    "simsiam": "SimSiam", "vicreg": "VICReg", "barlow_twins": "Barlow Twins", "swav": "SwAV", "nnclr": "NNCLR",
    "mae": "MAE", "simmim": "SimMIM", "dino": "DINO", "dinov2": "DINOv2", "ibot": "iBOT", "ijepa": "I-JEPA",
    "lejepa": "LeJEPA", "data2vec": "data2vec", "msn": "MSN", "deepcluster_v2": "DeepCluster v2", "densecl": "DenseCL",
    "ressl": "ReSSL", "tico": "TiCo", "wmse": "W-MSE", "supcon": "SupCon", "rotation": "Rotation", "jigsaw": "Jigsaw",
    "colorization": "Colorization", "relative_position": "Relative position", "cpc": "CPC",
}  # fmt: skip
STAGES = {
    "pretrain": "Pretraining",
    "knn": "kNN",
    "linear": "Linear probe",
    "finetune": "Fine-tuning",
    "detect": "Detection",
    "segment": "Segmentation",
    "attention": "Attention",
    "embed": "Embedding",
}
KINDS = {
    "knn": "kNN",
    "linear": "Linear probe",
    "finetune": "Fine-tuned",
    "detect": "Detection",
    "segment": "Segmentation",
    "attention": "Attention",
}
BASELINES = {
    "random_init": "Random weights",
    "raw_pixels": "Raw pixels",
    "naive": "Naive features",
    "start": "Before training",
    "from_scratch": "From scratch",
    "most_common_class": "Most common class",
}


def method(name: Any) -> str:
    """A method's name as its authors write it."""
    return METHODS.get(str(name), str(name))


def value(key: str, found: Any) -> str:
    """A result for people."""
    return number(float(found), is_share(key)) if isinstance(found, int | float) else str(found)


def command(words: Any) -> str:
    """A command line to paste."""
    return secrets.hide(f"python -m ssl_lightning {shlex.join(str(word) for word in words)}".rstrip())


def home(config: Mapping[str, Any]) -> str:
    """The run's folder as a command line names it."""
    runs_dir, name = str(config.get("runs_dir") or "runs"), str(config.get("name") or "")
    return secrets.hide(f"{runs_dir}/{name}" if name else runs_dir)
