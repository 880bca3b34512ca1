"""The views of a whole batch in one pass on its device, each clip with its own parameters, and the evaluation view."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.audio.draw import (
    AudioView,
    AudioViews,
    Draws,
    LocalAudioView,
    draw_noise,
    draw_partners,
    draw_view,
)
from ssl_lightning.modalities.audio.logmel import LogMel, Normal, inside, stretch_weights
from ssl_lightning.modalities.audio.resample import read_at

__all__ = ["AudioEvalView", "AudioView", "AudioViews", "DeviceAudioViews", "LocalAudioView", "finished"]

Clips = tuple[Tensor, Tensor]  # (B, L) and lengths (B,)


def window(
    clips: Clips, view: AudioView, share: Tensor, start: Tensor, place: Tensor, speed: Tensor
) -> tuple[Tensor, ...]:
    """A window of each clip, put somewhere in a view: (waves (B, L), first (B,), count (B,)).

    The window lies in the clip's own samples, never in what pads it. `first` and `count` say where it is in the view;
    around it are zeros. All draws are float64 (B,).
    """
    x, lengths = clips
    n, length = lengths.double(), view.length
    count = (share * torch.minimum(n / speed, torch.full_like(n, length))).floor().clamp(1, length)  # (B,)
    room = (n - count * speed).floor().clamp(min=0)
    begin = (start * (room + 1)).floor()
    first = (place * (length - count + 1)).floor().long()
    if view.speed == (1.0, 1.0):
        at = (begin.long() - first).unsqueeze(1) + torch.arange(length, device=x.device)
        wave = x.gather(1, at.clamp(0, x.shape[1] - 1))
    else:
        wave = read_at(x, lengths, begin - first * speed, speed, length, view.speed[1])
    return torch.where(inside(count.long(), length, first), wave, 0), first, count.long()


def noisy(wave: Tensor, count: Tensor, factor: Tensor, noise: Tensor) -> Tensor:
    """`wave` (B, L) plus `noise` (B, L) at `factor` (B,) of the root mean square of its `count` samples."""
    level = (wave.square().sum(1) / count).sqrt() * factor.to(wave.dtype)
    return wave + level.unsqueeze(1) * noise.to(wave.dtype)


def mixed(x: Tensor, other: Tensor, share: Tensor, logarithms: bool) -> Tensor:
    """(1 - share) x + share other, (B, ...) each and share (B,); of logarithms by what they are the logarithm of."""
    share = share.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    if not logarithms:
        return torch.lerp(x, other, share)
    return torch.logaddexp(x + torch.log1p(-share), other + share.log())


def resized(x: Tensor, view: AudioView, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Random resize crop of (B, F, T): (the view, the window's left edge, its width), edges (B,) in frames."""
    edges = []
    for size, canvas, (scale, place) in zip(x.shape[1:], view.canvas, (draws.freq, draws.time), strict=True):
        whole = torch.full_like(scale, size)
        width = torch.where(draws.resize, whole * scale.clamp(max=canvas), whole)
        left = torch.where(draws.resize, place * (canvas * size - width) - (canvas - 1) / 2 * size, 0.0)
        edges.append((left, width))
    rows, columns = (stretch_weights(*edge, size, size).to(x.dtype) for edge, size in zip(edges, x.shape[1:]))
    return rows @ x @ columns.transpose(1, 2), *edges[1]


def hidden(size: int, spans: Tensor, most: float, begin: Tensor, end: Tensor) -> Tensor:
    """(B, size) bool: what the spans (B, M, 2) hide, each 0 to floor(most * (end - begin)) places long.

    They lie in [begin, end), whole numbers (B,), float64.
    """
    room = (end - begin).unsqueeze(1)  # (B, 1)
    length = (spans[..., 0] * ((most * room).floor() + 1)).floor()  # (B, M)
    first = begin.unsqueeze(1) + (spans[..., 1] * (room - length + 1)).floor()
    places = torch.arange(size, device=spans.device)
    return ((places >= first.unsqueeze(2)) & (places < (first + length).unsqueeze(2))).any(1)


class DeviceAudioViews:
    """All views of a batch in one pass, on the device of its clips, in float32 (float64 clips stay so).

    `views(x, lengths, indices, epoch)` takes clips (B, L) and their lengths (B,), and gives for each view waves
    (B, 1, view.length), or log-mels (B, 1, F, T), normalised. A clip's view does not depend on its batch. Where views
    mix clips, `others` holds for each such view the clips at the rows that `partners` names.

    Args:
        views: how they are drawn.
        mel: the spectrogram, or None for waves.
        normal: applied to what a network sees; masks and what lies around a resized view are 0, the mean.
        seed: of the draws.
        count: clips in the training set, for `partners`.
    """

    def __init__(self, views: AudioViews, mel: LogMel | None, normal: Normal, seed: int, count: int):
        self.views, self.mel, self.normal, self.seed, self.count = views.list(), mel, normal, seed, count
        for view in self.views if mel is None else ():
            if view.resize_p > 0 or view.freq_masks > 0:
                raise UserError(
                    "waves have no frequencies to resize or hide; set resize_p=0 and freq_masks=0, or logmel"
                )

    def partners(self, indices: Tensor, epoch: int) -> list[Tensor]:
        """For each view that mixes, the rows (B,) of the training set that are mixed into the clips of `indices`."""
        mixing = [place for place, view in enumerate(self.views) if view.mixes]
        return [draw_partners(place, self.count, self.seed, epoch, indices) for place in mixing]

    @torch.no_grad()
    def __call__(
        self, x: Tensor, lengths: Tensor, indices: Tensor, epoch: int, others: Sequence[Clips] = ()
    ) -> list[Tensor]:
        if len(others) != sum(view.mixes for view in self.views):
            raise UserError(
                f"{len(others)} batches to mix in, where {sum(v.mixes for v in self.views)} views mix clips"
            )
        left, out = list(others), []
        # Mixed precision is for the network: views are drawn in full precision.
        with torch.autocast(x.device.type, enabled=False):
            for place, view in enumerate(self.views):
                draws = draw_view(view, place, self.seed, epoch, indices.to(x.device))
                noise = None
                if view.noise_p > 0:
                    noise = draw_noise(place, self.seed, epoch, indices.to(x.device), view.length)
                out.append(self._view(view, draws, (x, lengths), noise, left.pop(0) if view.mixes else None))
        return out

    def _view(self, view: AudioView, draws: Draws, clips: Clips, noise: Tensor | None, other: Clips | None) -> Tensor:
        wave, first, count = window(clips, view, draws.share, draws.start, draws.place, draws.speed)
        wave = wave * draws.gain.to(wave.dtype).unsqueeze(1)
        if noise is not None:
            wave = noisy(wave, count, draws.noise, noise)
        y = wave if self.mel is None else self.mel(wave)
        if other is not None:
            one = torch.ones_like(draws.share)
            second = window(other, view, one, draws.other_start, draws.other_place, one)[0]
            y = mixed(y, second if self.mel is None else self.mel(second), draws.mix, self.mel is not None)
        y = self.normal(y)
        return self._masked(y, view, draws, first.double(), count.double())

    def _masked(self, y: Tensor, view: AudioView, draws: Draws, first: Tensor, count: Tensor) -> Tensor:
        """Resizes and masks (B, L) or (B, F, T): -> (B, 1, ...)."""
        hop = 1 if self.mel is None else self.mel.hop_samples
        begin, end, size = first / hop, (first + count) / hop, y.shape[-1]
        if view.resize_p > 0:
            y, left, width = resized(y, view, draws)
            begin, end = ((edge - left) * size / width for edge in (begin, end))
        begin = begin.floor().clamp(0, size - 1)
        end = torch.maximum(end.ceil().clamp(max=size), begin + 1)
        if view.time_masks:
            time = hidden(size, draws.time_masks, view.time_mask, begin, end)
            y = y.masked_fill(time if y.ndim == 2 else time.unsqueeze(1), 0)
        if view.freq_masks:
            bands = torch.full_like(begin, y.shape[1])
            freq = hidden(y.shape[1], draws.freq_masks, view.freq_mask, torch.zeros_like(bands), bands)
            y = y.masked_fill(freq.unsqueeze(2), 0)
        return y.unsqueeze(1)


def finished(x: Tensor, mel: LogMel | None, normal: Normal) -> Tensor:
    """Waves (B, L) as a network sees them: (B, 1, L), or log-mels (B, 1, F, T); normalised."""
    return normal(x if mel is None else mel(x)).unsqueeze(1)


class AudioEvalView:
    """The one deterministic view of evaluation: a fixed crop, or clips as they are.

    Args:
        length: samples; the middle of a longer clip, zeros on both sides of a shorter one. None: whole clips, with
            zeros up to the longest of the batch.
        mel, normal: see `DeviceAudioViews`.
    """

    def __init__(self, length: int | None, mel: LogMel | None, normal: Normal):
        self.length, self.mel, self.normal = length, mel, normal

    def crop(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Clips (B, L) -> (B, length), what lies in their `lengths` (B,) alone; all of them without a length."""
        if self.length is None:
            return torch.where(inside(lengths, x.shape[1]), x, 0)
        begin = torch.div(lengths - self.length, 2, rounding_mode="floor")  # below 0 where a clip is shorter
        at = begin.unsqueeze(1) + torch.arange(self.length, device=x.device)
        known = (at >= 0) & (at < lengths.unsqueeze(1))
        return torch.where(known, x.gather(1, at.clamp(0, x.shape[1] - 1)), 0)

    @torch.no_grad()
    def __call__(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """((B, 1, L') or (B, 1, F, T) normalised, the lengths (B,) of each in samples or frames).

        Of fixed crops all lengths are the whole: the zeros are part of what is seen.
        """
        y = finished(self.crop(x, lengths), self.mel, self.normal)
        if self.length is not None:
            return y, torch.full_like(lengths, y.shape[-1])
        return y, lengths if self.mel is None else self.mel.frame_lengths(lengths)
