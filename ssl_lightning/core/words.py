"""Small words for people: durations, counts, names of baselines."""

from __future__ import annotations

BASELINES = {
    "random_init": "random weights",
    "start": "the weights it began with",
    "naive": "naive features",
    "from_scratch": "training from scratch",
    "train_mean": "the training mean",
}


def clock(seconds: float) -> str:
    """12 -> '0:12', 3700 -> '1:01:40'."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def counted(count: int, word: str = "image") -> str:
    """`1 image`, `2,000 images`, `2 classes`."""
    return f"{count:,} {word}{'' if count == 1 else 'es' if word.endswith('s') else 's'}"


def named_baseline(key: str) -> str:
    """A baseline's key in results.json in words: `raw_pixels` -> "raw pixels"."""
    return BASELINES.get(key, key.replace("_", " "))
