"""`tones`: melodies in eight classes under many nuisance factors, made on the spot; nothing is downloaded.

A class is a melody's shape (rising or falling), a timbre (all harmonics or the odd ones) and a tremolo (slow or fast).
What varies beside: pitch, loudness, onset, length, speed of the tremolo, phases, and noise; and each group of clips
(an instrument) has a register, a spectral tilt and a level of noise of its own. Means over time do not tell rising
from falling, nor slow from fast; a feature that follows the melody does.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import hashed_seed
from ssl_lightning.modalities.audio.clips import ArrayClips

VERSION = 1
SHAPES, TIMBRES, TREMOLOS = ("rising", "falling"), ("full", "hollow"), ("slow", "fast")
CLASSES = [f"{shape}-{timbre}-{tremolo}" for shape in SHAPES for timbre in TIMBRES for tremolo in TREMOLOS]
GROUPS = 12
HARMONICS = 9
LOUDEST = 0.9
BLOCK = 256  # clips made at a time


class Tones(NamedTuple):
    """Waves float32 (B, L), of which the first `lengths` (B,) samples are the clip; labels and groups (B,) int64."""

    waves: Tensor
    lengths: Tensor
    labels: Tensor
    groups: Tensor


def tones(count: int, split: str = "train", sample_rate: int = 8000, seconds: float = 1.0, seed: int = 0) -> ArrayClips:
    """The first `count` clips of a split, 0.6 to 1 times `seconds` long, with labels and groups.

    Clip i depends on (seed, split, i) alone. Training clips are of groups 0 to 7, all others of 8 to 11.
    """
    if count < 1 or sample_rate < 4000 or seconds <= 0:
        raise UserError(f"tones need a clip or more at 4000 Hz or more, not {count} of {seconds} s at {sample_rate} Hz")
    parts = [render(rows, split, sample_rate, seconds, seed) for rows in torch.arange(count).split(BLOCK)]
    waves = [wave[:n] for part in parts for wave, n in zip(part.waves, part.lengths.tolist(), strict=True)]
    clips = ArrayClips.of(waves, sample_rate)
    clips.labelled_as(torch.cat([part.labels for part in parts]), CLASSES)
    return clips.grouped_as(torch.cat([part.groups for part in parts]), [f"instrument-{i:02d}" for i in range(GROUPS)])


def render(indices: Tensor, split: str, sample_rate: int = 8000, seconds: float = 1.0, seed: int = 0) -> Tones:
    """The clips of `indices` (B,) of a split; see `tones`."""
    key = hashed_seed("tones", VERSION, seed, split) >> 2
    u = uniform(key, 0, indices, 0, 16).double()  # (B, 16)
    labels = indices % len(CLASSES)
    falling, hollow, fast = (labels // step % 2 == 1 for step in (4, 2, 1))
    first, groups = (0, 8) if split == "train" else (8, GROUPS - 8)
    group = first + (u[:, 0] * groups).long()
    own = uniform(hashed_seed("instruments", VERSION, seed) >> 2, 0, group, 0, 4).double()  # (B, 4)

    size = round(sample_rate * seconds)
    lengths = ((0.6 + 0.4 * u[:, 1]) * size).long().clamp(min=1)
    time = torch.arange(size, dtype=torch.float64) / sample_rate
    onset = 0.2 * u[:, 2] * lengths / sample_rate
    span = lengths / sample_rate - onset
    now = ((time - onset[:, None]) / span[:, None]).clamp(0, 1)  # (B, L), 0 to 1 over the melody

    octaves = 0.8 * own[:, 0] + 0.6 * u[:, 3]  # above 130 Hz
    rise = (0.5 + 0.5 * u[:, 4]) * torch.where(falling, -1.0, 1.0)
    # Centred, so that rising and falling pass the same pitches.
    pitch = 130 * 2 ** (octaves[:, None] + rise[:, None] * (now - 0.5))
    phase = 2 * math.pi * (u[:, 5:6] + pitch.cumsum(1) / sample_rate)
    tone = _harmonics(phase, pitch, hollow, 0.5 + own[:, 1], sample_rate / 2)

    rate = torch.where(fast, 11.0, 4.5) * (0.85 + 0.3 * u[:, 6])
    swing = 0.6 * torch.sin(2 * math.pi * (rate[:, None] * time + u[:, 7:8]))
    edge = (now * 20).clamp(max=1) * ((1 - now) * 12).clamp(max=1)  # attack and release
    tone = tone * (1 + swing) * edge
    tone = tone / tone.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)

    noise = _noise(key, indices, size) * 10 ** (-(6 + 12 * own[:, 2:3] + 8 * u[:, 8:9]) / 20)
    wave = tone + noise
    wave = wave * (torch.arange(size) < lengths[:, None])
    loud = LOUDEST * 10 ** (-1.2 * u[:, 9:10])
    wave = wave / wave.abs().amax(1, keepdim=True) * loud
    return Tones(wave.float(), lengths, labels, group)


def _harmonics(phase: Tensor, pitch: Tensor, hollow: Tensor, tilt: Tensor, nyquist: float) -> Tensor:
    """Sum over k of sin(k phase) / k^tilt, of the odd k alone where `hollow`; those above `nyquist` are left out."""
    before, current, twice = torch.zeros_like(phase), phase.sin(), 2 * phase.cos()
    total = torch.zeros_like(phase)
    for k in range(1, HARMONICS + 1):
        strength = k**-tilt * (1.0 if k % 2 else (~hollow).double())
        total += strength[:, None] * torch.where(k * pitch < nyquist, current, 0)
        before, current = current, twice * current - before  # sin((k + 1) a) = 2 cos a sin(k a) - sin((k - 1) a)
    return total


def _noise(key: int, indices: Tensor, size: int) -> Tensor:
    """About normal, variance 1: sums of three even numbers."""
    u = uniform(key, 0, indices, 1, 3 * size).double()
    return (u.unflatten(1, (size, 3)).sum(2) - 1.5) * 2
