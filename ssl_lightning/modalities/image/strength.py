"""`views.strength` of images: one number for how far the views of an image differ."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_lightning.modalities.image.draw import View

SMALLEST = 0.02  # of an image: no crop is made smaller than this


def scaled(view: View, strength: float) -> View:
    """`view` at a strength s: 1 leaves it as it is, 0 takes its colours, blur and crops away.

    - brightness, contrast, saturation: times s, and hue, at most 0.5 (SimCLR's s, https://arxiv.org/abs/2002.05709).
    - scale: [high - (high - low) s, high], where the lower bound is at least 0.02, or `low` if that is smaller.
    - blur: its largest sigma is low + (high - low) s.
    - grayscale_p, blur_p, solarize_p: times s, at most 1.
    - `also`: what each operation says (`Operation.scaled`): an angle, a power, a share of the image times s.

    Flips, right angles, the crop's ratio and jitter_p stay.
    """
    if strength == 1:
        return view
    (low, high), (least, most) = view.scale, view.blur_sigma
    changed: dict[str, Any] = {
        "scale": (max(high - (high - low) * strength, min(low, SMALLEST)), high),
        "hue": min(0.5, view.hue * strength),
        "blur_sigma": (least, least + (most - least) * strength),
        "also": tuple(op.scaled(strength) for op in view.also),
    }
    changed |= {name: getattr(view, name) * strength for name in ("brightness", "contrast", "saturation")}
    changed |= {name: min(1.0, getattr(view, name) * strength) for name in ("grayscale_p", "blur_p", "solarize_p")}
    return changed_in(view, changed)


def changed_in(view: View, values: Mapping[str, Any]) -> View:
    """A copy with other values. Not by `replace`: a local view would become smaller again."""
    found = copy.copy(view)
    for name, value in values.items():
        object.__setattr__(found, name, value)
    return found


OFF = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)} | dict.fromkeys(("flip_p", "grayscale_p", "blur_p", "solarize_p"), 0.0)
OFF |= dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)


def switched_off(view: View, key: str) -> View:
    """`view` without what one key draws: a key of OFF, or the class of an operation of `also`."""
    if key == "scale":  # the whole of a square image
        return changed_in(view, {"scale": OFF["scale"], "ratio": OFF["ratio"]})
    if key in OFF:
        return changed_in(view, {key: OFF[key]})
    return changed_in(view, {"also": tuple(op for op in view.also if type(op).__name__ != key)})


def keys_of(view: View) -> list[str]:
    """The keys that `switched_off` takes and that have an effect on this view."""
    jittered = ("brightness", "contrast", "saturation", "hue") if view.jitter_p > 0 else ()
    kept = ("scale", "flip_p", *jittered, "grayscale_p", "blur_p", "solarize_p")
    effect = [key for key in kept if getattr(view, key) not in (OFF[key], 0)]
    return [*effect, *dict.fromkeys(type(op).__name__ for op in view.also if op.p > 0)]
