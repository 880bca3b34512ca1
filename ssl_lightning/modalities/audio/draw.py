"""What a view of a clip is made of (`AudioView`, `AudioViews`) and its draws, a pure function of (seed, epoch, index).

Crops, gain and noise of the wave; on log-mels the mixing and random resize crop of BYOL-A (Niizumi et al. 2021,
https://arxiv.org/abs/2103.06695) and the masks of SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.plan import Views
from ssl_lightning.modalities.audio.strength import keys_of, scaled, switched_off

MOST_STRENGTH = 4.0
MOST_MASKS = 16
SCALARS = 16  # numbers that a view takes before its masks
Pair = tuple[float, float]
_RANGES = {"crop": (0, 1), "speed": (0, 4), "freq_scale": (0, 4), "time_scale": (0, 4)}
_SHARES = ("noise_p", "mix", "mix_p", "resize_p", "time_mask", "freq_mask")


@dataclass(frozen=True)
class AudioView:
    """How one kind of view is drawn, `count` times per clip.

    A window of a clip, at most as long as the view, is put at a random place of it, with zeros around.

    Attributes:
        length: samples of the view, L.
        crop: bounds of the window's share of what there is of a clip, or of the view where that is shorter.
        speed: bounds of the factor by which a clip is read faster, drawn evenly in its logarithm; pitch goes with it.
        shift: False puts the window at the view's start.
        gain: bounds in dB.
        noise_p, noise_snr: how often white noise is added, and bounds of the signal's power over its own in dB.
        mix_p, mix: how often another clip of the training set is mixed in, and the largest share it gets; log-mels are
            mixed by their powers, as in BYOL-A, waves as they are.
        resize_p, time_scale, freq_scale: of log-mels: how often a window of so many times the view's own size is
            resized to it. It lies anywhere in `canvas`, (frequency, time) times as large as the view, which is in its
            middle, the mean around it; BYOL-A's numbers. Here it is resized linearly and antialiased, there bicubic.
        time_masks, time_mask: how many spans of time are hidden, each a share of the window up to `time_mask` long.
        freq_masks, freq_mask: the same of the bands of log-mels.
    """

    length: int
    count: int = 1
    crop: tuple[float, float] = (0.6, 1.0)
    speed: tuple[float, float] = (1.0, 1.0)
    shift: bool = True
    gain: tuple[float, float] = (-6.0, 6.0)
    noise_p: float = 0.0
    noise_snr: tuple[float, float] = (10.0, 40.0)
    mix_p: float = 0.0
    mix: float = 0.4
    resize_p: float = 0.0
    time_scale: tuple[float, float] = (0.6, 1.5)
    freq_scale: tuple[float, float] = (0.6, 1.5)
    canvas: tuple[float, float] = (1.0, 1.5)
    time_masks: int = 0
    time_mask: float = 0.2
    freq_masks: int = 0
    freq_mask: float = 0.2

    def __post_init__(self) -> None:
        for name in ("crop", "speed", "gain", "noise_snr", "time_scale", "freq_scale"):
            pair = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, pair)  # a config brings lists
            low, high = _RANGES.get(name, (-math.inf, math.inf))
            if len(pair) != 2 or not low < pair[0] <= pair[1] <= high:
                raise UserError(
                    f"a view's {name}={list(pair)} is not a range; give [low, high] above {low} and to {high}"
                )
        if len(self.canvas) != 2 or min(self.canvas) < 1:
            raise UserError(f"a view's canvas={list(self.canvas)} does not hold the view; give [1, 1] or more")
        object.__setattr__(self, "canvas", (float(self.canvas[0]), float(self.canvas[1])))
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"a view's {name}={getattr(self, name)} is not a share; give a number from 0 to 1")
        if self.length < 1 or self.count < 1:
            raise UserError(f"a view of length={self.length}, count={self.count} is empty; give 1 or more of each")
        if not (0 <= self.time_masks <= MOST_MASKS and 0 <= self.freq_masks <= MOST_MASKS):
            raise UserError(f"a view has 0 to {MOST_MASKS} masks, not {self.time_masks} and {self.freq_masks}")

    @property
    def mixes(self) -> bool:
        return self.mix_p > 0 and self.mix > 0


@dataclass(frozen=True)
class LocalAudioView(AudioView):
    """A short view of multi-crop: `length` is the global views', this one's is `part` of it in whole `multiple`s."""

    part: float = 3 / 7
    multiple: int = 1  # samples: a hop, or a patch of so many hops

    def __post_init__(self) -> None:
        if not 0 < self.part < 1 or self.multiple < 1:
            raise UserError(
                f"a local view's part={self.part} is not a part of the global ones; give a number between 0 and 1"
            )
        short = self.multiple * max(round(self.length * self.part / self.multiple), 1)
        if short >= self.length:
            raise UserError(f"a local view in multiples of {self.multiple} samples is no shorter than the global views")
        object.__setattr__(self, "length", short)
        super().__post_init__()


@dataclass
class AudioViews(Views):
    """The views of one clip: one or two kinds of global ones and, for multi-crop, a shorter local one.

    `strength` scales all that is drawn of them together, 1 as they are; `strength.scaled` has the formula.
    """

    global_1: AudioView
    global_2: AudioView | None = None
    local: AudioView | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= MOST_STRENGTH:
            raise UserError(f"views.strength={self.strength} is out of range; give 0 to {MOST_STRENGTH:g}, 1 as it is")

    def list(self) -> list[AudioView]:
        """One entry per view of a clip, global ones first."""
        kinds = [view for view in (self.global_1, self.global_2, self.local) if view is not None]
        return [scaled(view, self.strength) for view in kinds for _ in range(view.count)]

    def without(self) -> dict[str, Views]:
        kinds = {name: view for name in ("global_1", "global_2", "local") if (view := getattr(self, name)) is not None}
        keys = dict.fromkeys(key for view in kinds.values() for key in keys_of(view))
        return {key: replace(self, **{n: switched_off(view, key) for n, view in kinds.items()}) for key in keys}  # type: ignore[arg-type]

    def roles(self) -> tuple[str, ...]:
        """ "global" or "local" for each entry of `list`."""
        kinds = (self.global_1, "global"), (self.global_2, "global"), (self.local, "local")
        return tuple(role for view, role in kinds if view is not None for _ in range(view.count))


@dataclass
class Draws:
    """What is drawn for one view of B clips, before their lengths are known; in [0, 1) unless it says otherwise."""

    share: Tensor  # (B,) within `crop`
    start: Tensor  # of the room that the window leaves in the clip
    speed: Tensor  # factor, within `speed`
    place: Tensor  # of the room that the window leaves in the view
    gain: Tensor  # factor
    noise: Tensor  # factor of the noise's amplitude over the signal's root mean square; 0 without noise
    mix: Tensor  # share of the other clip; 0 without
    other_start: Tensor
    other_place: Tensor
    resize: Tensor  # bool
    time: tuple[Tensor, Tensor]  # (factor of the view's size, place) of the resized window
    freq: tuple[Tensor, Tensor]
    time_masks: Tensor  # (B, masks, 2): length and place
    freq_masks: Tensor


def draw_view(view: AudioView, place: int, seed: int, epoch: int, indices: Tensor) -> Draws:
    """The draws of the view at `place` in `AudioViews.list()`, one per index (B,); float64."""
    masks = 2 * (view.time_masks + view.freq_masks)
    u = uniform(seed, epoch, indices, 2 * place, 2 + SCALARS + masks)
    u = (u if u.device.type == "mps" else u.double())[:, 2:]  # the first two are `draw_partners`'

    def within(pair: Pair, k: int) -> Tensor:
        return pair[0] + (pair[1] - pair[0]) * u[:, k]

    def log_within(pair: Pair, k: int) -> Tensor:
        return torch.exp(within((math.log(pair[0]), math.log(pair[1])), k))

    spans = u[:, SCALARS:].unflatten(1, (-1, 2)) if masks else u.new_zeros(len(u), 0, 2)
    return Draws(
        share=within(view.crop, 0),
        start=u[:, 1],
        speed=log_within(view.speed, 2),
        place=u[:, 3] if view.shift else torch.zeros_like(u[:, 3]),
        gain=10 ** (within(view.gain, 4) / 20),
        noise=torch.where(u[:, 5] < view.noise_p, 10 ** (-within(view.noise_snr, 6) / 20), 0.0),
        mix=torch.where(u[:, 7] < view.mix_p, view.mix * u[:, 8], 0.0),
        other_start=u[:, 9],
        other_place=u[:, 10] if view.shift else torch.zeros_like(u[:, 10]),
        resize=u[:, 11] < view.resize_p,
        time=(within(view.time_scale, 12), u[:, 13]),
        freq=(within(view.freq_scale, 14), u[:, 15]),
        time_masks=spans[:, : view.time_masks],
        freq_masks=spans[:, view.time_masks :],
    )


def draw_partners(place: int, count: int, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """The row of the training set, of `count`, that may be mixed into the view at `place`: int64 (B,).

    Any row of the whole set and not only of the batch: so the partner depends on neither the batch nor the number of
    processes, and has to be fetched with the clip. It may be the clip itself.
    """
    u = uniform(seed, epoch, indices, 2 * place, 2).double()
    return ((u[:, 0] + u[:, 1] * 2.0**-24) * count).long().clamp_(max=count - 1)


def draw_noise(place: int, seed: int, epoch: int, indices: Tensor, length: int) -> Tensor:
    """White noise of variance 1, float32 (B, length), by Box and Muller."""
    half = (length + 1) // 2
    u = uniform(seed, epoch, indices, 2 * place + 1, 2 * half).unflatten(1, (half, 2))
    radius = (-2 * torch.log1p(-u[..., 0])).sqrt()
    angle = 2 * math.pi * u[..., 1]
    return torch.stack((radius * angle.cos(), radius * angle.sin()), 2).flatten(1)[:, :length]
