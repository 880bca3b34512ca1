"""Resampling by a windowed sinc: to another sample rate (polyphase), or to other positions for each clip of a batch.

Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/: the samples are the sinc series of a
band-limited signal, read at other times through a low-pass at the lower of the two rates' half.
"""

import functools
import math

import torch
from torch import Tensor

ZEROS = 32  # zero crossings of the sinc on each side
BETA = 8.0  # of the Kaiser window: what aliases is 80 dB down
ROLLOFF = 0.92  # of the lower Nyquist frequency; the band passes unchanged up to 0.84 of it, and is gone above it
CHUNK = 1 << 22  # products made at a time


def ratio(rate: int, to: int) -> tuple[int, int]:
    """(up, down): `to` / `rate` as a fraction of whole numbers.

    >>> ratio(44100, 16000)
    (160, 441)
    """
    common = math.gcd(rate, to)
    return to // common, rate // common


def resampled_length(length: int, rate: int, to: int) -> int:
    """How many samples `length` of them become: ceil(length * to / rate)."""
    up, down = ratio(rate, to)
    return -(-length * up // down)


def reach(rate: int, to: int) -> int:
    """How many samples of the source on each side of a place a result depends on, at most."""
    return math.ceil(ZEROS / (ROLLOFF * min(1.0, to / rate))) + 1


@functools.lru_cache(maxsize=8)
def _kernels(up: int, down: int) -> Tensor:
    """Row p: the weights of the 2 * reach samples around a place that lies p / up after a sample; float32."""
    side, cut = reach(down, up), ROLLOFF * min(1.0, up / down)  # of the source's Nyquist frequency
    taps = torch.arange(-side + 1, side + 1, dtype=torch.float64)
    distance = torch.arange(up, dtype=torch.float64).unsqueeze(1) / up - taps  # (up, 2 side)
    inside = (distance * cut / ZEROS).square().clamp_(max=1.0)
    window = torch.special.i0(BETA * (1 - inside).sqrt()) / torch.special.i0(torch.tensor(BETA, dtype=torch.float64))
    window[distance.abs() * cut > ZEROS] = 0
    return (cut * torch.sinc(cut * distance) * window).float()


def resample(x: Tensor, rate: int, to: int, first: int = 0, count: int | None = None, begins: int = 0) -> Tensor:
    """Samples (n,) at `rate` Hz -> float32 at `to` Hz; outside of what is given the signal is 0.

    Args:
        first, count: which of the results are wanted, counted from the signal's start; None: all from `first` on.
        begins: where in the signal x[0] lies, in samples of the source: for a part of a long one, with `reach` samples
            more on each side.
    """
    up, down = ratio(rate, to)
    if count is None:
        count = resampled_length(begins + len(x), rate, to) - first
    if up == down:
        first -= begins
        return x[first : first + count].float()
    if count <= 0:
        return torch.empty(0)
    side = reach(rate, to)
    places = (first + torch.arange(count, dtype=torch.int64)) * down
    base, phase = places // up - begins, places % up  # sample base + phase / up
    kernels = _kernels(up, down)
    short = max(0, int(base[-1]) + side + 1 - len(x))
    before = max(0, side - int(base[0]))
    windows = torch.nn.functional.pad(x.float(), (before, short)).unfold(0, 2 * side, 1)
    start = base - side + 1 + before  # >= 1
    step = max(1, CHUNK // (2 * side))
    parts = [(windows[start[i : i + step]] * kernels[phase[i : i + step]]).sum(1) for i in range(0, count, step)]
    return torch.cat(parts)


LOBES = 8  # zero crossings of the sinc for clips of a batch, under a Hann window


def read_at(x: Tensor, lengths: Tensor, start: Tensor, speed: Tensor, count: int, fastest: float) -> Tensor:
    """Each clip of a batch read at the places start, start + speed, ...: float (B, count).

    A clip that is read faster is shorter and higher, and what it would alias is filtered out first. Outside of its
    `lengths` first samples a clip is 0.

    Args:
        x: (B, L). lengths: (B,) int64. start: (B,) float64, in samples. speed: (B,) float64, above 0.
        fastest: no speed is above it; a number, so that no device is waited for.
    """
    cut = speed.reciprocal().clamp(max=1.0)  # (B,) of the Nyquist frequency
    side = math.ceil(LOBES * max(fastest, 1.0))
    steps = torch.arange(count, device=x.device, dtype=start.dtype)
    places = start.unsqueeze(1) + speed.unsqueeze(1) * steps  # (B, count)
    base = places.floor()
    after, base = (places - base).to(x.dtype), base.long()
    cut = cut.to(x.dtype).unsqueeze(1)
    out = torch.zeros_like(after)
    for tap in range(-side + 1, side + 1):
        at = base + tap
        distance = cut * (after - tap)
        window = torch.cos(distance.clamp(-LOBES, LOBES) * (math.pi / (2 * LOBES))).square()
        known = (at >= 0) & (at < lengths.unsqueeze(1))
        value = x.gather(1, at.clamp(0, x.shape[1] - 1))
        out += torch.where(known, value, 0) * torch.sinc(distance) * window
    return out * cut
