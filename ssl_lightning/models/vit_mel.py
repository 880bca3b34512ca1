"""A ViT on log-mels, as large as a view of the data: Gong et al. 2021, "AST", https://arxiv.org/abs/2104.01778"""

from typing import Any

from ssl_lightning.core.errors import UserError
from ssl_lightning.models.vit import ViT


class MelViT(ViT):
    """A `ViT` on spectrograms (B, 1, mels, T), T = length // (hop x sample_rate) frames; other T that patches divide
    are taken, too.

    Args:
        mels: bands.
        length: samples of a view.
        sample_rate: Hz.
        hop: seconds from frame to frame.
        patch_size: bands and frames of a patch.
        **vit: further arguments of `ViT`.

    Raises:
        UserError: patches that do not divide bands and frames.
    """

    reads = "log-mels of sound"

    def __init__(
        self,
        mels: int = 64,
        length: int = 15360,
        sample_rate: int = 16000,
        hop: float = 0.01,
        patch_size: int = 8,
        **vit: Any,
    ) -> None:
        step = max(1, round(hop * sample_rate))  # samples
        frames = max(1, length // step)
        if mels % patch_size or frames % patch_size:
            raise UserError(
                f"patches of {patch_size} do not divide log-mels of {mels} bands x {frames} frames; set data.mels to a "
                f"multiple of {patch_size} and data.length to one of {patch_size * step} samples, or change "
                "backbone.patch_size"
            )
        super().__init__((mels, frames), patch_size, in_channels=1, **vit)
