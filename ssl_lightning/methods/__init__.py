"""Self-supervised methods: one LightningModule per file, each in its paper's order.

Each name is imported when it is first asked for: `from ssl_lightning.methods import SimCLR`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_lightning.config import lazy

if TYPE_CHECKING:
    from ssl_lightning.methods.barlow_twins import BarlowTwins as BarlowTwins
    from ssl_lightning.methods.base import SSLMethod as SSLMethod
    from ssl_lightning.methods.byol import BYOL as BYOL
    from ssl_lightning.methods.colorization import Colorization as Colorization
    from ssl_lightning.methods.cpc import CPC as CPC
    from ssl_lightning.methods.data2vec import Data2Vec as Data2Vec
    from ssl_lightning.methods.deepcluster_v2 import DeepClusterV2 as DeepClusterV2
    from ssl_lightning.methods.densecl import DenseCL as DenseCL
    from ssl_lightning.methods.dino import DINO as DINO
    from ssl_lightning.methods.ibot import IBOT as IBOT
    from ssl_lightning.methods.ijepa import IJEPA as IJEPA
    from ssl_lightning.methods.jigsaw import Jigsaw as Jigsaw
    from ssl_lightning.methods.lejepa import LeJEPA as LeJEPA
    from ssl_lightning.methods.mae import MAE as MAE
    from ssl_lightning.methods.moco import MoCo as MoCo
    from ssl_lightning.methods.moco_v3 import MoCoV3 as MoCoV3
    from ssl_lightning.methods.msn import MSN as MSN
    from ssl_lightning.methods.nnclr import NNCLR as NNCLR
    from ssl_lightning.methods.relative_position import RelativePosition as RelativePosition
    from ssl_lightning.methods.ressl import ReSSL as ReSSL
    from ssl_lightning.methods.rotation import Rotation as Rotation
    from ssl_lightning.methods.simclr import SimCLR as SimCLR
    from ssl_lightning.methods.simmim import SimMIM as SimMIM
    from ssl_lightning.methods.simsiam import SimSiam as SimSiam
    from ssl_lightning.methods.supcon import SupCon as SupCon
    from ssl_lightning.methods.supervised import Supervised as Supervised
    from ssl_lightning.methods.swav import SwAV as SwAV
    from ssl_lightning.methods.tico import TiCo as TiCo

# tests/test_surface.py holds this table and the imports above together.
_HOMES = {
    "BarlowTwins": "barlow_twins",
    "BYOL": "byol",
    "Colorization": "colorization",
    "CPC": "cpc",
    "Data2Vec": "data2vec",
    "DeepClusterV2": "deepcluster_v2",
    "DenseCL": "densecl",
    "DINO": "dino",
    "IBOT": "ibot",
    "IJEPA": "ijepa",
    "Jigsaw": "jigsaw",
    "LeJEPA": "lejepa",
    "MAE": "mae",
    "MoCo": "moco",
    "MoCoV3": "moco_v3",
    "MSN": "msn",
    "NNCLR": "nnclr",
    "RelativePosition": "relative_position",
    "ReSSL": "ressl",
    "Rotation": "rotation",
    "SimCLR": "simclr",
    "SimMIM": "simmim",
    "SimSiam": "simsiam",
    "SSLMethod": "base",
    "SupCon": "supcon",
    "Supervised": "supervised",
    "SwAV": "swav",
    "TiCo": "tico",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy.names(__name__, _HOMES)
