"""What is known of each clip of `tones`: the factors that it was made from, as numbers and classes to be read."""

from torch import Tensor

from ssl_lightning.core.counter import uniform
from ssl_lightning.data.sampler import hashed_seed
from ssl_lightning.modalities.audio.tones import CLASSES, VERSION


def factors(indices: Tensor, seed: int = 0, split: str = "train") -> dict[str, Tensor]:
    """The factors of the clips `indices` (N,) of a split; no sound is made.

    class, melody (rising 0, falling 1), timbre (full, hollow) and tremolo (slow, fast), (N,) int64; pitch (N,), octaves
    above the lowest; loudness (N,), log10 of the peak over the loudest; length (N,), a share of the longest.
    """
    key = hashed_seed("tones", VERSION, seed, split) >> 2
    u = uniform(key, 0, indices, 0, 16).double()
    first, groups = (0, 8) if split == "train" else (8, 4)
    group = first + (u[:, 0] * groups).long()
    own = uniform(hashed_seed("instruments", VERSION, seed) >> 2, 0, group, 0, 4).double()
    labels = indices % len(CLASSES)
    return {
        "class": labels,
        "melody": labels // 4 % 2,
        "timbre": labels // 2 % 2,
        "tremolo": labels % 2,
        "pitch": (0.8 * own[:, 0] + 0.6 * u[:, 3]).float(),
        "loudness": (-1.2 * u[:, 9]).float(),
        "length": (0.6 + 0.4 * u[:, 1]).float(),
    }
