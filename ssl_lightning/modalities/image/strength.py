"""`views.strength` of images: one number for how far the views of an image differ."""

from __future__ import annotations

import copy
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
    found = copy.copy(view)  # not `replace`: a local view would become smaller again
    for name, value in changed.items():
        object.__setattr__(found, name, value)
    return found
