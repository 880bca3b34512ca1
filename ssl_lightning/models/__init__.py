"""Networks: backbones (items to features), heads (features to embeddings), decoders and predictors.

Each name is imported when it is first asked for: `from ssl_lightning.models import ConvNetSmall`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_lightning.config import lazy

if TYPE_CHECKING:
    from ssl_lightning.models.audio import MelConvNet as MelConvNet
    from ssl_lightning.models.audio import WaveConvNet as WaveConvNet
    from ssl_lightning.models.context import GRUContext as GRUContext
    from ssl_lightning.models.context import InContext as InContext
    from ssl_lightning.models.context import RowContext as RowContext
    from ssl_lightning.models.context import TransformerContext as TransformerContext
    from ssl_lightning.models.convnet import ConvNetSmall as ConvNetSmall
    from ssl_lightning.models.decoder import MAEDecoder as MAEDecoder
    from ssl_lightning.models.heads import MLP as MLP
    from ssl_lightning.models.heads import DINOHead as DINOHead
    from ssl_lightning.models.predictor import TokenPredictor as TokenPredictor
    from ssl_lightning.models.resnet import ResNet as ResNet
    from ssl_lightning.models.timm import timm_backbone as timm_backbone
    from ssl_lightning.models.transformer1d import Transformer1d as Transformer1d
    from ssl_lightning.models.vit import ViT as ViT
    from ssl_lightning.models.vit_mel import MelViT as MelViT

# tests/test_surface.py holds this table and the imports above together.
_HOMES = {
    "ConvNetSmall": "convnet",
    "DINOHead": "heads",
    "GRUContext": "context",
    "InContext": "context",
    "MAEDecoder": "decoder",
    "MelConvNet": "audio",
    "MelViT": "vit_mel",
    "MLP": "heads",
    "ResNet": "resnet",
    "RowContext": "context",
    "timm_backbone": "timm",
    "TokenPredictor": "predictor",
    "Transformer1d": "transformer1d",
    "TransformerContext": "context",
    "ViT": "vit",
    "WaveConvNet": "audio",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy.names(__name__, _HOMES)
