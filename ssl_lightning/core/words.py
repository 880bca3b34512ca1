"""Small words for people: durations, counts, names of baselines and of measures as results.json has them."""

from __future__ import annotations

import re

BASELINES = {
    "random_init": "random weights",
    "start": "the weights it began with",
    "naive": "naive features",
    "from_scratch": "training from scratch",
    "train_mean": "the training mean",
    "majority_class": "the most frequent class",
    "constant": "the same answer for all",
    "most_common_class": "the most common class",
}

METHODS = {
    "simclr": "SimCLR", "moco": "MoCo v2", "moco_v1": "MoCo v1", "moco_v3": "MoCo v3", "byol": "BYOL", "dcl": "DCL",
    "simsiam": "SimSiam", "vicreg": "VICReg", "barlow_twins": "Barlow Twins", "swav": "SwAV", "nnclr": "NNCLR",
    "mae": "MAE", "simmim": "SimMIM", "dino": "DINO", "dinov2": "DINOv2", "ibot": "iBOT", "ijepa": "I-JEPA",
    "lejepa": "LeJEPA", "data2vec": "data2vec", "msn": "MSN", "deepcluster_v2": "DeepCluster v2", "densecl": "DenseCL",
    "ressl": "ReSSL", "tico": "TiCo", "wmse": "W-MSE", "supcon": "SupCon", "rotation": "Rotation", "jigsaw": "Jigsaw",
    "colorization": "Colorization", "relative_position": "Relative position", "cpc": "CPC",
    "supervised": "Supervised",
}  # fmt: skip
STAGES = {
    "pretrain": "Pretraining",
    "knn": "kNN",
    "linear": "Linear probe",
    "finetune": "Fine-tuning",
    "label_curve": "Labels",
    "detect": "Detection",
    "segment": "Segmentation",
    "attention": "Attention",
    "retrieve": "Retrieval",
    "quality": "Quality without labels",
    "transfer": "Transfer",
    "invariance": "Invariance",
    "embed": "Embedding",
    "predict": "Prediction",
}

# A measure's key is a kind and a metric, `knn_top1`; of a baseline that needs no network the metric alone.
KINDS = {
    "knn": "kNN",
    "linear": "linear probe",
    "finetune": "fine-tuned",
    "predict": "predicted",
    "retrieve": "retrieval",
    "detect": "detection",
    "segment": "segmentation",
    "attention": "attention",
}
METRICS = {"top1": "", "balanced_accuracy": "balanced", "map": "mAP", "macro_f1": "F1", "auroc": "AUROC", "r2": "R2"}
METRICS |= {"mae": "MAE", "cer": "CER", "wer": "WER"}
METRICS |= {"recall": "recall", "precision": "precision"}
METRICS |= {"map_50": "mAP50", "map_75": "mAP75", "miou": "mIoU", "jaccard": "Jaccard"}
SECOND = ("top5", "rmse")  # stay in results.json
# Fractions, shown in percent.
SHARES = ("top1", "top5", "accuracy", "map", "miou", "f1", "cer", "wer", "50", "75", "recall", "precision", "jaccard")
LOWER = ("cer", "wer", "mae", "rmse")  # of these less is better


def clock(seconds: float) -> str:
    """12 -> '0:12', 3700 -> '1:01:40'."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def counted(count: int, word: str = "image") -> str:
    """`1 image`, `2,000 images`, `2 classes`."""
    return f"{count:,} {word}{'' if count == 1 else 'es' if word.endswith(('s', 'x')) else 's'}"


def named_baseline(key: str) -> str:
    """A baseline's key in results.json in words: `raw_pixels` -> "raw pixels"."""
    return BASELINES.get(key, key.replace("_", " "))


def plain_word(word: str) -> str:
    """`name='sweep/seed=1'`, as a sweep gives it to its jobs, as a person types it: the value of a name is text."""
    found = re.fullmatch(r"name='([^'\\]+)'", word)
    return f"name={found[1]}" if found and found[1] not in ("null", "true", "false") else word


def method(name: object) -> str:
    """A method's name as its authors write it."""
    return METHODS.get(str(name), str(name))


def headed(phrase: str) -> str:
    """A phrase as a heading: `raw pixels` -> "Raw pixels"; "kNN" stays."""
    return phrase if phrase[1:2].isupper() else phrase[:1].upper() + phrase[1:]


def last_word(key: str) -> str:
    """`baselines.random_init.knn_macro_f1` -> "f1"."""
    return key.rsplit(".", 1)[-1].rsplit("_", 1)[-1]


def is_share(key: str) -> bool:
    """Is this a fraction, shown in percent?"""
    return last_word(key) in SHARES


def of_row(key: str, metric: object) -> str:
    """The measure that a column of a table is of where its rows name their metric: `random_init_knn`, `top1` ->
    "random_init_knn_top1"."""
    return f"{key}_{metric}" if metric and key.endswith(tuple(KINDS)) else key


def measure(kind: str, metric: str) -> str:
    """A heading: `knn`, `top1` -> "kNN"; `linear`, `macro_f1` -> "linear probe F1"."""
    return f"{KINDS.get(kind, kind)} {METRICS.get(metric, metric)}".strip()
