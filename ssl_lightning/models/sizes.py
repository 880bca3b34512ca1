"""Which image sizes a network takes: our ViT, timm's networks of patches, and convolutional ones."""

from typing import Any

from torch import nn

from ssl_lightning.errors import UserError


def patch_size(backbone: nn.Module) -> int:
    """Side of its patches in pixels, which must divide its images; 1 for a network without."""
    size: Any = getattr(getattr(backbone, "patch_embed", None), "patch_size", 1)
    return int(size if isinstance(size, int) else size[0])


def takes_any_size(backbone: nn.Module) -> bool:
    """Whether it takes images of other sizes than the one it was built for."""
    return not getattr(getattr(backbone, "patch_embed", None), "strict_img_size", False)


def check_tiles(backbone: nn.Module, size: int) -> None:
    """Refuses a network that cannot be shown tiles of `size` px."""
    if not takes_any_size(backbone):
        raise UserError("this network takes one image size only, and is to be shown tiles; choose another backbone")
    if size % patch_size(backbone):
        raise UserError(
            f"patches of {patch_size(backbone)} px do not divide tiles of {size} px; change method.tile_size"
        )
