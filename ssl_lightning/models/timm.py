"""Any network of timm (https://github.com/huggingface/pytorch-image-models) as a backbone."""

import re
from collections.abc import Sequence
from typing import Any

import timm
from torch import nn

from ssl_lightning.config.allowed import TIMM_ARGUMENTS
from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.models.timm_tokens import with_tokens


def timm_backbone(
    name: str,
    image_size: int | Sequence[int] | None = None,
    pretrained: bool = False,
    in_channels: int = 3,
    **kwargs: Any,
) -> nn.Module:
    """timm's network `name` without its classifier: (B, in_channels, H, W) -> (B, out_dim).

    Networks built for one image size (ViTs, Swin, mixers) are built for `image_size`, a number or (height, width),
    which may be (bands, frames) of a spectrogram; the others take any size.
    `kwargs` go to the network, for instance `patch_size=4` to give a ViT more than four tokens at 32 px; only sizes and
    kinds of layers (`TIMM_ARGUMENTS`), none of timm's that read or fetch files.

    Raises:
        UserError: an unknown name, an argument that is none of these or that this network does not take, an image size
            that its patches do not divide, or pretrained weights that cannot be fetched.
    """
    unknown = [key for key in kwargs if key not in TIMM_ARGUMENTS]
    if unknown:
        hint = did_you_mean(unknown[0], TIMM_ARGUMENTS)
        raise UserError(f"backbone.{unknown[0]} is no size or layer of a timm network.{hint}")
    if not re.fullmatch(r"[A-Za-z0-9_.]+", name) or not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], timm.list_models())
        raise UserError(f"timm has no network named {name!r};{hint} timm.list_models() lists them all")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if image_size is not None and config is not None and config.fixed_input_size:
        size = image_size if isinstance(image_size, int) else tuple(map(int, image_size))
        kwargs = {"img_size": size, **kwargs}
    if in_channels != 3:
        kwargs = {"in_chans": in_channels, **kwargs}
    net: Any = _create(name, pretrained, kwargs)
    patch = _pair(getattr(getattr(net, "patch_embed", None), "patch_size", 1))  # XCiT's is a number
    size = _pair(kwargs.get("img_size", patch))
    if any(side % part for side, part in zip(size, patch, strict=True)):
        patches, sides = (" x ".join(map(str, dict.fromkeys(two))) for two in (patch, size))
        raise UserError(f"{name} has patches of {patches} px, which do not divide {sides} px; change one of the two")
    # Where timm keeps a layer between pooling and classifier, the features are as wide as that layer.
    net.out_dim = getattr(net, "head_hidden_size", None) or net.num_features
    return with_tokens(net)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _create(name: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs)
    except (TypeError, AssertionError) as error:
        raise UserError(f"{name} refuses an argument: {_one_line(error)}; correct backbone.*") from error
    except Exception as error:  # without `pretrained` nothing is fetched, and the error is timm's own
        if not pretrained:
            raise
        why = _one_line(error)
        raise UserError(f"no pretrained weights of {name} ({why}); set pretrained=false or connect once") from error


def _one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
