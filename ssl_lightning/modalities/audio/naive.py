"""What features must beat: statistics of log-mels, without any learning."""

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.audio.logmel import LogMel, inside, stretch_weights

FRAMES = 32  # of `stretched_mel`


def mel_statistics(x: Tensor, lengths: Tensor, mel: LogMel) -> Tensor:
    """Mean and deviation over time of each band: clips (B, L) with their lengths (B,) -> (B, 2 F)."""
    values, frames = mel(x), mel.frame_lengths(lengths)
    known = inside(frames, values.shape[2]).unsqueeze(1)
    count = frames.unsqueeze(1)
    mean = torch.where(known, values, 0).sum(2) / count
    off = torch.where(known, values - mean.unsqueeze(2), 0)
    return torch.cat((mean, (off.square().sum(2) / count).sqrt()), 1)


def stretched_mel(x: Tensor, lengths: Tensor, mel: LogMel, frames: int = FRAMES) -> Tensor:
    """Log-mels resized in time to so many `frames`, antialiased: clips (B, L) with lengths (B,) -> (B, F * frames)."""
    values, own = mel(x), mel.frame_lengths(lengths)
    size = own.double()
    weights = stretch_weights(torch.zeros_like(size), size, frames, values.shape[2])  # (B, frames, T)
    weights = torch.where(inside(own, values.shape[2]).unsqueeze(1), weights, 0)
    weights = weights / weights.sum(2, keepdim=True)  # at the ends, of what is there
    return (values @ weights.to(values.dtype).transpose(1, 2)).flatten(1)


NAIVE: dict[str, Callable[[Tensor, Tensor, LogMel], Tensor]] = {
    "mel_statistics": mel_statistics,
    "stretched_mel": stretched_mel,
}


def naive(name: str) -> Callable[[Tensor, Tensor, LogMel], Tensor]:
    """One of `NAIVE`, by name."""
    if name not in NAIVE:
        raise UserError(f"no naive baseline named {name!r}; choose one of {', '.join(NAIVE)}")
    return NAIVE[name]
