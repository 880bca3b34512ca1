"""Losses: one published equation per file, tensors in, a scalar out.

Each name is imported when it is first asked for: `from ssl_lightning.losses import NTXent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_lightning.config import lazy

if TYPE_CHECKING:
    from ssl_lightning.losses.barlow_twins import BarlowTwinsLoss as BarlowTwinsLoss
    from ssl_lightning.losses.byol import BYOLLoss as BYOLLoss
    from ssl_lightning.losses.color import ColorLoss as ColorLoss
    from ssl_lightning.losses.cpc import CPCLoss as CPCLoss
    from ssl_lightning.losses.dcl import DCL as DCL
    from ssl_lightning.losses.dino import DINOLoss as DINOLoss
    from ssl_lightning.losses.hard_negative import HardNegative as HardNegative
    from ssl_lightning.losses.ibot import MaskedPatchLoss as MaskedPatchLoss
    from ssl_lightning.losses.info_nce import InfoNCE as InfoNCE
    from ssl_lightning.losses.koleo import KoLeo as KoLeo
    from ssl_lightning.losses.masked_pixels import MaskedPixelLoss as MaskedPixelLoss
    from ssl_lightning.losses.msn import MSNLoss as MSNLoss
    from ssl_lightning.losses.nt_xent import NTXent as NTXent
    from ssl_lightning.losses.ressl import ReSSLLoss as ReSSLLoss
    from ssl_lightning.losses.sig_reg import SIGReg as SIGReg
    from ssl_lightning.losses.sup_con import SupConLoss as SupConLoss
    from ssl_lightning.losses.swav import SwAVLoss as SwAVLoss
    from ssl_lightning.losses.tico import TiCoLoss as TiCoLoss
    from ssl_lightning.losses.vicreg import VICRegLoss as VICRegLoss
    from ssl_lightning.losses.w_mse import WMSELoss as WMSELoss

# tests/test_surface.py holds this table and the imports above together.
_HOMES = {
    "BarlowTwinsLoss": "barlow_twins",
    "BYOLLoss": "byol",
    "ColorLoss": "color",
    "CPCLoss": "cpc",
    "DCL": "dcl",
    "DINOLoss": "dino",
    "HardNegative": "hard_negative",
    "InfoNCE": "info_nce",
    "KoLeo": "koleo",
    "MaskedPatchLoss": "ibot",
    "MaskedPixelLoss": "masked_pixels",
    "MSNLoss": "msn",
    "NTXent": "nt_xent",
    "ReSSLLoss": "ressl",
    "SIGReg": "sig_reg",
    "SupConLoss": "sup_con",
    "SwAVLoss": "swav",
    "TiCoLoss": "tico",
    "VICRegLoss": "vicreg",
    "WMSELoss": "w_mse",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy.names(__name__, _HOMES)
