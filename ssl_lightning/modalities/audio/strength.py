"""`views.strength` of sound: one number for how far the views of a clip differ."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_lightning.modalities.audio.draw import AudioView

SMALLEST = 0.02  # of a clip: no window is made shorter than this


def scaled(view: AudioView, strength: float) -> AudioView:
    """`view` at a strength s: 1 leaves it as it is, 0 takes windows, gain, noise, mixing and masks away.

    - crop: [high - (high - low) s, high], where the lower bound is at least 0.02, or `low` if that is smaller.
    - gain: both bounds, in dB, times s; speed, time_scale and freq_scale: to the power s, at most 4.
    - noise_p, mix_p, mix, time_mask, freq_mask: times s, at most 1; resize_p only below 1.
    """
    if strength == 1:
        return view
    low, high = view.crop
    changed: dict[str, Any] = {
        "crop": (max(high - (high - low) * strength, min(low, SMALLEST)), high),
        "gain": (view.gain[0] * strength, view.gain[1] * strength),
        "resize_p": view.resize_p * min(1.0, strength),
    }
    for name in ("speed", "time_scale", "freq_scale"):
        changed[name] = tuple(min(4.0, bound**strength) for bound in getattr(view, name))
    for name in ("noise_p", "mix_p", "mix", "time_mask", "freq_mask"):
        changed[name] = min(1.0, getattr(view, name) * strength)
    return changed_in(view, changed)


def changed_in(view: AudioView, values: Mapping[str, Any]) -> AudioView:
    """A copy with other values. Not by `replace`: a local view would become shorter again."""
    found = copy.copy(view)
    for name, value in values.items():
        object.__setattr__(found, name, value)
    return found


OFF: dict[str, Any] = {"crop": (1.0, 1.0), "speed": (1.0, 1.0), "gain": (0.0, 0.0)}
OFF |= {"noise_p": 0.0, "mix_p": 0.0, "resize_p": 0.0, "time_masks": 0, "freq_masks": 0}


def switched_off(view: AudioView, key: str) -> AudioView:
    """`view` without what one key of OFF draws."""
    return changed_in(view, {key: OFF[key]})


def keys_of(view: AudioView) -> list[str]:
    """The keys of OFF that have an effect on this view."""
    return [key for key, off in OFF.items() if getattr(view, key) != off]
