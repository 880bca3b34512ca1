"""What methods are made of besides networks and losses: queue, center, Sinkhorn, k-means, masking, teacher.

Each name is imported when it is first asked for: `from ssl_lightning.parts import Queue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_lightning.config import lazy

if TYPE_CHECKING:
    from ssl_lightning.parts.center import Center as Center
    from ssl_lightning.parts.center import SinkhornCenter as SinkhornCenter
    from ssl_lightning.parts.color_bins import ColorBins as ColorBins
    from ssl_lightning.parts.ema_teacher import EMATeacher as EMATeacher
    from ssl_lightning.parts.kmeans import spherical_kmeans as spherical_kmeans
    from ssl_lightning.parts.masking import block_mask as block_mask
    from ssl_lightning.parts.masking import patchify as patchify
    from ssl_lightning.parts.masking import unpatchify as unpatchify
    from ssl_lightning.parts.queue import Queue as Queue
    from ssl_lightning.parts.teacher import Teacher as Teacher
    from ssl_lightning.parts.tiles import cut_tiles as cut_tiles

# tests/test_surface.py holds this table and the imports above together.
_HOMES = {
    "block_mask": "masking",
    "Center": "center",
    "ColorBins": "color_bins",
    "cut_tiles": "tiles",
    "EMATeacher": "ema_teacher",
    "patchify": "masking",
    "Queue": "queue",
    "SinkhornCenter": "center",
    "spherical_kmeans": "kmeans",
    "Teacher": "teacher",
    "unpatchify": "masking",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy.names(__name__, _HOMES)
