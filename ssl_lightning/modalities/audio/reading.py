"""What a sound file holds, read by its part: mono, at the rate that is asked for. Through `soundfile` (libsndfile)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.folder_scan import Kind
from ssl_lightning.modalities.audio.resample import reach, resample, resampled_length
from ssl_lightning.modalities.image.pixels import regular

RECORDINGS = Kind("recording", frozenset((".wav", ".wave", ".flac", ".ogg", ".oga")), ".wav, .flac or .ogg")
BROKEN = (OSError,)  # what reading raises on a damaged, foreign, empty or silent file
FAULT = "that cannot be decoded, or are empty or silent"
FORMATS = frozenset(("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG"))
RATES = (1000, 384_000)  # Hz; other headers lie
BLOCK = 1 << 20  # numbers read at a time, whatever a header says


class Silent(OSError):
    """A whole file of one value: nothing can be learned from it."""


def soundfile() -> Any:
    """The package of that name. Raises a UserError that names the extra where it is missing."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise UserError(f"sound files need soundfile ({error}): pip install 'ssl_lightning[audio]'") from error
    return soundfile


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """A sound file, for reading; whatever goes wrong with it is one of `BROKEN`."""
    library = soundfile()
    with regular(path) as file, library.SoundFile(file) as sound:
        if sound.format not in FORMATS:
            raise OSError(f"{path} is {sound.format}, which is not read")
        if not RATES[0] <= sound.samplerate <= RATES[1]:
            raise OSError(f"{path} says that it has {sound.samplerate} samples a second")
        yield sound


def length(path: str, sample_rate: int) -> int:
    """Samples that a file has at `sample_rate`, by its header. Raises one of `BROKEN`."""
    with opened(path) as sound:
        return resampled_length(max(sound.frames, 0), sound.samplerate, sample_rate)


def read(path: str, sample_rate: int, most: int, where: float = 0.5) -> Tensor:
    """A file's samples (n,), float32, mono (the mean of its channels), at `sample_rate` Hz; n is at most `most`.

    Of a longer file one part is read: the first where `where` is 0, the middle at 0.5, the last near 1. A part has the
    very values that the whole file has there.

    Raises:
        one of `BROKEN`: no sound file of a format that is read, an empty one, one of no finite numbers, or `Silent`.
    """
    with opened(path) as sound:
        rate, frames = sound.samplerate, max(sound.frames, 0)
        total = resampled_length(frames, rate, sample_rate)
        first = int(where * (total - most + 1)) if total > most else 0
        count = min(total, most)
        side = reach(rate, sample_rate)
        begins = max(0, first * rate // sample_rate - side)
        ends = min(frames, (first + count) * rate // sample_rate + side + 1)
        samples = _mono(sound, begins, ends - begins)
    if len(samples) == 0:
        raise OSError(f"{path} is empty")
    if not bool(torch.isfinite(samples).all()):
        raise OSError(f"{path} holds nan or infinite values")
    if total <= most and bool((samples == samples[0]).all()):
        raise Silent(f"{path} is silent")
    count = min(count, resampled_length(begins + len(samples), rate, sample_rate) - first)  # less than was said
    return resample(samples, rate, sample_rate, first, max(count, 0), begins)


def _mono(sound: Any, begins: int, count: int) -> Tensor:
    """(n,) float32: the mean of the channels of `count` frames, fewer where the file ends before."""
    if begins:
        sound.seek(begins)
    step = max(1, BLOCK // sound.channels)
    parts, left = [np.empty(0, np.float32)], count
    while left > 0:
        block = sound.read(min(step, left), dtype="float32", always_2d=True)  # (n, channels)
        if len(block) == 0:
            break
        parts.append(block[:, 0] if block.shape[1] == 1 else block.mean(1, dtype=np.float64).astype(np.float32))
        left -= len(block)
    return torch.from_numpy(np.concatenate(parts))
