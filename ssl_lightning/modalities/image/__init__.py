"""Images: sources, views on the device, evaluation view, the naive baseline.

Each name is imported when it is first asked for: `from ssl_lightning.modalities.image import View, Views`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_lightning.config import lazy

if TYPE_CHECKING:
    from ssl_lightning.modalities.image.data import DataModule as DataModule
    from ssl_lightning.modalities.image.draw import LocalView as LocalView
    from ssl_lightning.modalities.image.draw import View as View
    from ssl_lightning.modalities.image.draw import Views as Views
    from ssl_lightning.modalities.image.operation import Operation as Operation
    from ssl_lightning.modalities.image.sources.array import Array as Array
    from ssl_lightning.modalities.image.sources.cifar import CIFAR10 as CIFAR10
    from ssl_lightning.modalities.image.sources.cifar import CIFAR100 as CIFAR100
    from ssl_lightning.modalities.image.sources.coco import Coco as Coco
    from ssl_lightning.modalities.image.sources.folder import Folder as Folder
    from ssl_lightning.modalities.image.sources.shapes import Shapes as Shapes
    from ssl_lightning.modalities.image.sources.stl10 import STL10 as STL10
    from ssl_lightning.modalities.image.sources.voc import VOC as VOC
    from ssl_lightning.modalities.image.views import DeviceViews as DeviceViews
    from ssl_lightning.modalities.image.views import EvalView as EvalView

# tests/test_surface.py holds this table and the imports above together.
_HOMES = {
    "Array": "sources.array",
    "CIFAR10": "sources.cifar",
    "CIFAR100": "sources.cifar",
    "Coco": "sources.coco",
    "DataModule": "data",
    "DeviceViews": "views",
    "EvalView": "views",
    "Folder": "sources.folder",
    "LocalView": "draw",
    "Operation": "operation",
    "Shapes": "sources.shapes",
    "STL10": "sources.stl10",
    "VOC": "sources.voc",
    "View": "draw",
    "Views": "draw",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy.names(__name__, _HOMES)
