"""Log-mel spectrograms by `torch.stft`, and the one mean and deviation that inputs are normalised with."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import permutation
from ssl_lightning.modalities.audio.clips import ClipSet

STATISTIC_CLIPS, STATISTIC_BATCH = 2000, 64  # of the training set, that the statistic is taken from


@dataclass(frozen=True)
class LogMel:
    """Waves (B, L) -> log of the power in `mels` bands (B, mels, L // hop), natural logarithm.

    Frame t is centred on the hop-th part t of the wave, with zeros around the wave. Filters are triangles of height 1
    on the mel scale of HTK, mel = 2595 log10(1 + f / 700) (Young et al., "The HTK Book", section 5.4).

    Args:
        sample_rate: Hz.
        mels: F, bands.
        window, hop: seconds; rounded to samples.
        low, high: Hz, the outer edges of the bands; `high` None: half the sample rate.
        floor: added to the power before the logarithm.
    """

    sample_rate: int = 16_000
    mels: int = 64
    window: float = 0.025
    hop: float = 0.01
    low: float = 60.0
    high: float | None = None
    floor: float = 1e-6

    def __post_init__(self) -> None:
        if self.hop_samples < 1 or self.window_samples < self.hop_samples:
            raise UserError(
                f"a log-mel of window={self.window:g} s and hop={self.hop:g} s at {self.sample_rate} Hz skips samples; "
                "give a hop of one sample or more, and a window no shorter"
            )
        if not 0 <= self.low < self.top <= self.sample_rate / 2:
            raise UserError(
                f"mel bands from {self.low:g} to {self.top:g} Hz do not lie between 0 and half the sample rate, "
                f"{self.sample_rate / 2:g} Hz; change low or high"
            )
        if self.mels < 1 or not bool(filters(self).any(0).all()):
            raise UserError(f"{self.mels} mel bands are too many for windows of {self.window:g} s; give fewer")

    @property
    def hop_samples(self) -> int:
        return round(self.hop * self.sample_rate)

    @property
    def window_samples(self) -> int:
        return round(self.window * self.sample_rate)

    @property
    def points(self) -> int:
        """Of the Fourier transform: a power of two, at least twice the window."""
        return 2 ** (math.ceil(math.log2(max(self.window_samples, 2))) + 1)

    @property
    def top(self) -> float:
        return self.sample_rate / 2 if self.high is None else self.high

    def frames(self, samples: int) -> int:
        """T of so many samples; at least 1."""
        return max(1, samples // self.hop_samples)

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """`frames` of each of (B,) lengths."""
        return (lengths // self.hop_samples).clamp(min=1)

    def __call__(self, x: Tensor) -> Tensor:
        """Waves (B, L) -> (B, mels, T), T = `frames(L)`, in the waves' own type, float32 or float64."""
        length = max(x.shape[1], self.hop_samples)  # one frame at least
        around = self.points - self.hop_samples
        x = nn.functional.pad(x, (around // 2, around - around // 2 + length - x.shape[1]))
        window = torch.hann_window(self.window_samples, dtype=x.dtype, device=x.device)
        spectrum = torch.stft(
            x, self.points, self.hop_samples, self.window_samples, window, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (B, points / 2 + 1, T)
        bank = filters(self).to(x)
        return (bank.T @ power + self.floor).log()


@lru_cache(maxsize=8)
def filters(mel: LogMel) -> Tensor:
    """(points / 2 + 1, mels) float64: the weight of each frequency in each band."""
    edges = torch.linspace(_mel(mel.low), _mel(mel.top), mel.mels + 2, dtype=torch.float64)
    edges = 700 * (10 ** (edges / 2595) - 1)  # Hz
    hertz = torch.linspace(0, mel.sample_rate / 2, mel.points // 2 + 1, dtype=torch.float64).unsqueeze(1)
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_(min=0)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


@dataclass(frozen=True)
class Normal:
    """(x - mean) / std with one mean and std for all bands, as in BYOL-A; `of` takes them from a training set."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise UserError(f"audio's mean={self.mean} and std={self.std} do not normalise; std must be above 0")

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def card(self) -> dict[str, float]:
        """Plain values for the card of a network."""
        return {"mean": self.mean, "std": self.std}


def normal_of(clips: ClipSet, mel: LogMel | None, seed: int = 0, most: int = STATISTIC_CLIPS) -> Normal:
    """The mean and deviation of a training set: over bands and true frames of its log-mels, or over samples (`mel`
    None, whose mean is taken as 0: a wave has none). From `most` clips, drawn with `seed`; sums in float64.

    Raises:
        UserError: the clips do not vary.
    """
    rows = permutation(len(clips), "statistic", seed)[:most].sort().values
    count, total, squares = 0, 0.0, 0.0
    for some in rows.split(STATISTIC_BATCH):
        fetched = clips.fetch(some)
        x, lengths = fetched.x, fetched.lengths
        values = x.unsqueeze(1) if mel is None else mel(x)  # (B, F or 1, T)
        lengths = lengths if mel is None else mel.frame_lengths(lengths)
        known = inside(lengths, values.shape[2]).unsqueeze(1)
        values = torch.where(known, values, 0).double()
        count += int(lengths.sum()) * values.shape[1]
        total += float(values.sum())
        squares += float(values.square().sum())
    mean = 0.0 if mel is None else total / max(count, 1)
    std = math.sqrt(max(squares / max(count, 1) - mean**2, 0.0))
    if not std > 0:
        raise UserError("these recordings do not vary, so nothing can be learned from them; are they silent?")
    return Normal(round(mean, 6), float(f"{std:.6g}"))


def inside(lengths: Tensor, length: int, first: Tensor | None = None) -> Tensor:
    """(B, length) bool: the places of each row from `first` (0 without) on, `lengths` (B,) of them."""
    steps = torch.arange(length, device=lengths.device)
    if first is None:
        return steps < lengths.unsqueeze(1)
    return (steps >= first.unsqueeze(1)) & (steps < (first + lengths).unsqueeze(1))


def stretch_weights(first: Tensor, size: Tensor, to: int, length: int) -> Tensor:
    """(B, to, length): `to` places spread over the window [first, first + size) of a line of `length`, antialiased.

    Linear interpolation under a triangle as wide as the step, when that is above one place; `first` and `size` (B,) may
    be fractions. What lies outside the line counts as 0: weights of places that are not there are lost, not shared.
    """
    step = (size / to).unsqueeze(1)  # (B, 1)
    centres = first.unsqueeze(1) + (torch.arange(to, device=first.device) + 0.5) * step  # (B, to)
    places = torch.arange(length, device=first.device) + 0.5
    width = step.clamp(min=1.0).unsqueeze(2)
    weights = (1 - (places - centres.unsqueeze(2)).abs() / width).clamp_(min=0)
    # The triangle's sum over all whole places, those outside the line as well.
    return weights / _triangle_sum(centres - 0.5, width.squeeze(2)).unsqueeze(2)


def _triangle_sum(centre: Tensor, width: Tensor) -> Tensor:
    """Sum over all integers k of max(0, 1 - |k - centre| / width)."""
    after = centre - centre.floor()  # of the nearest lower integer

    def side(distance: Tensor) -> Tensor:
        """Integers at distance, distance + 1, ... within the width."""
        count = ((width - distance).ceil()).clamp(min=0)
        return count - (count * distance + count * (count - 1) / 2) / width

    return side(after) + side(1 - after)
