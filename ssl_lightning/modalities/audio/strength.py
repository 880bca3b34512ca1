"""`views.strength` of sound: one number for how far the views of a clip differ."""

from __future__ import annotations

import copy
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
    found = copy.copy(view)  # not `replace`: a local view would become shorter again
    for name, value in changed.items():
        object.__setattr__(found, name, value)
    return found
