"""From a recording to a network's input, as the evaluation view of its training gave it: `.transform` of a backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.audio import reading
from ssl_lightning.modalities.audio.clips import ArrayClips
from ssl_lightning.modalities.audio.logmel import LogMel, Normal
from ssl_lightning.modalities.audio.resample import resample
from ssl_lightning.modalities.audio.views import AudioEvalView

SECONDS = 30.0  # of a longer file the middle of this length is taken, where the card has no `seconds`
WHOLE = {"int16": 2.0**15, "int32": 2.0**31}  # full scale


class AudioTransform:
    """`transform(recording)` -> float32 (1, F, T) or (1, L), normalised, on the CPU.

    A recording is a path, or a wave with its rate: `transform(wave, 44100)` or `transform((wave, 44100))`. A wave is an
    array or a tensor (n,), (n, channels) or (channels, n), floats around [-1, 1] or int16 or int32; channels are
    averaged. As in a set that is held in memory, samples are rounded to 16 bits.

    Raises:
        UserError: a file that cannot be decoded, is empty or silent; a wave without a rate.
    """

    kind = reading.RECORDINGS

    def __init__(self, card: Mapping[str, Any]) -> None:
        self.sample_rate, self.level = int(card["sample_rate"]), card.get("level")
        self.most = max(1, round(float(card.get("seconds") or SECONDS) * self.sample_rate))
        mel = None
        if card.get("representation", "logmel") == "logmel":
            mels, window, hop, low = (card[key] for key in ("mels", "window", "hop", "low"))
            mel = LogMel(self.sample_rate, mels, window, hop, low, card.get("high"))
        normal = Normal(float(card["mean"][0]), float(card["std"][0])) if card.get("mean") else Normal()
        self.view, self.length = AudioEvalView(int(card["length"]), mel, normal), int(card["length"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input: (1, F, T) or (1, L)."""
        mel = self.view.mel
        return (1, self.length) if mel is None else (1, mel.mels, mel.frames(self.length))

    def __call__(self, recording: Any, sample_rate: int | None = None) -> Tensor:
        clips = ArrayClips.of([self._samples(recording, sample_rate)], self.sample_rate, self.most)
        clips.level = self.level
        clip = clips.fetch(torch.zeros(1, dtype=torch.int64))
        return self.view(clip.x, clip.lengths)[0][0]

    def _samples(self, recording: Any, rate: int | None) -> Tensor:
        """(n,) float32 at the network's rate, mono."""
        if isinstance(recording, str | os.PathLike):
            name = os.path.expanduser(os.fspath(recording))
            try:
                return reading.read(name, self.sample_rate, self.most)
            except reading.BROKEN as error:
                raise UserError(f"{name} cannot be read as a recording: {error}") from error
        if isinstance(recording, tuple) and len(recording) == 2:
            recording, rate = recording
        wave = recording.detach().cpu().numpy() if isinstance(recording, Tensor) else np.asarray(recording)
        if wave.ndim not in (1, 2) or not (wave.dtype.kind == "f" or wave.dtype.name in WHOLE) or not wave.size:
            what = f"{type(recording).__name__} of {wave.dtype} {wave.shape}"
            raise UserError(f"{what} is not a recording; give a path, or a wave (n,) of floats or int16 and its rate")
        if not isinstance(rate, int | np.integer) or not reading.RATES[0] <= rate <= reading.RATES[1]:
            raise UserError("a wave needs its rate in Hz: transform(wave, 16000)")
        if wave.ndim == 2:
            wave = wave.mean(int(wave.shape[0] > wave.shape[1]), dtype=np.float64)
        samples = torch.from_numpy(
            (wave / WHOLE.get(str(recording.dtype).removeprefix("torch."), 1.0)).astype(np.float32)
        )
        if not bool(torch.isfinite(samples).all()):
            raise UserError("this wave holds nan or infinite values; give finite ones")
        return resample(samples, int(rate), self.sample_rate)

    def __repr__(self) -> str:
        what = "waves" if self.view.mel is None else f"log-mels of {self.view.mel.mels} bands"
        return f"AudioTransform(sample_rate={self.sample_rate}, length={self.view.length}, {what})"


def of_card(card: Mapping[str, Any]) -> AudioTransform | None:
    """The transform of a network with this card; None where the card does not say how recordings are fed."""
    logmel = card.get("representation", "logmel") == "logmel"
    needed = ("sample_rate", "length", *(("mels", "window", "hop", "low") if logmel else ()))
    return AudioTransform(card) if all(card.get(key) is not None for key in needed) else None
