"""Small words for people: durations, counts, names of baselines and of measures as results.json has them."""

from __future__ import annotations

BASELINES = {
    "random_init": "random weights",
    "start": "the weights it began with",
    "naive": "naive features",
    "from_scratch": "training from scratch",
    "train_mean": "the training mean",
    "most_common_class": "the most common class",
}

# A measure's key is a kind and a metric, `knn_top1`; of a baseline that needs no network the metric alone.
KINDS = {
    "knn": "kNN",
    "linear": "linear probe",
    "finetune": "fine-tuned",
    "detect": "detection",
    "segment": "segmentation",
    "attention": "attention",
}
METRICS = {
    "top1": "",
    "map": "mAP",
    "macro_f1": "F1",
    "r2": "R2",
    "mae": "MAE",
    "map_50": "mAP50",
    "map_75": "mAP75",
    "miou": "mIoU",
    "jaccard": "Jaccard",
    "cer": "CER",
    "wer": "WER",
}
SECOND = ("top5", "rmse")  # stay in results.json
SHARES = (
    "top1",
    "top5",
    "accuracy",
    "map",
    "miou",
    "jaccard",
    "f1",
    "cer",
    "wer",
    "50",
    "75",
)  # fractions, shown in percent
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


def last_word(key: str) -> str:
    """`baselines.random_init.knn_macro_f1` -> "f1"."""
    return key.rsplit(".", 1)[-1].rsplit("_", 1)[-1]


def is_share(key: str) -> bool:
    """Is this a fraction, shown in percent?"""
    return last_word(key) in SHARES


def measure(kind: str, metric: str) -> str:
    """A heading: `knn`, `top1` -> "kNN"; `linear`, `macro_f1` -> "linear probe F1"."""
    return f"{KINDS.get(kind, kind)} {METRICS.get(metric, metric)}".strip()
