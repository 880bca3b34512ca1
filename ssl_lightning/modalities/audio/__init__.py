"""Audio: sources, views on the device, evaluation view, the naive baseline.

Each name is imported when it is first asked for: `from ssl_lightning.modalities.audio import AudioView`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_lightning.config import lazy

if TYPE_CHECKING:
    from ssl_lightning.modalities.audio.data import AudioDataModule as AudioDataModule
    from ssl_lightning.modalities.audio.draw import AudioView as AudioView
    from ssl_lightning.modalities.audio.draw import AudioViews as AudioViews
    from ssl_lightning.modalities.audio.draw import LocalAudioView as LocalAudioView
    from ssl_lightning.modalities.audio.logmel import LogMel as LogMel
    from ssl_lightning.modalities.audio.sources import Audio as Audio
    from ssl_lightning.modalities.audio.sources import Tones as Tones
    from ssl_lightning.modalities.audio.views import AudioEvalView as AudioEvalView
    from ssl_lightning.modalities.audio.views import DeviceAudioViews as DeviceAudioViews

# tests/test_surface.py holds this table and the imports above together.
_HOMES = {
    "Audio": "sources",
    "AudioDataModule": "data",
    "AudioEvalView": "views",
    "AudioView": "draw",
    "AudioViews": "draw",
    "DeviceAudioViews": "views",
    "LocalAudioView": "draw",
    "LogMel": "logmel",
    "Tones": "sources",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy.names(__name__, _HOMES)
