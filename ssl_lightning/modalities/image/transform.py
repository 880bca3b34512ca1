"""From one picture to a network's input, as the evaluation view of its training gave it: `.transform` of a backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.folder_scan import IMAGES
from ssl_lightning.modalities.image import depth, pixels
from ssl_lightning.modalities.image.described import IMAGENET, per_channel
from ssl_lightning.modalities.image.images import BROKEN, decode
from ssl_lightning.modalities.image.views import EvalView

TIMM, TORCHVISION = "timm:", "torchvision:"  # what their cards have as method


class ImageTransform:
    """`transform(image)` -> float32 (C, image_size, image_size), normalised, on the CPU.

    An image is

    - a path: read as the data of the training were, in its full depth, the right way up;
    - a PIL image of any mode, turned as its EXIF block says;
    - a numpy array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W); the other order of axes is taken where only
      that one has as many channels as the network. Bytes, deeper whole numbers, or floats; floats in [0, 1] are scaled
      from that range, unless the card has a `value_range`.

    Raises:
        UserError: a file that cannot be decoded, or an image with another number of channels than the network takes.
    """

    kind = IMAGES

    def __init__(self, card: Mapping[str, Any]) -> None:
        self.channels = int(card.get("channels") or 3)
        mean = per_channel("mean", card.get("mean") or IMAGENET["mean"], self.channels)
        std = per_channel("std", card.get("std") or IMAGENET["std"], self.channels)
        found = card.get("value_range")
        self.value_range = None if found is None else (float(found[0]), float(found[1]))
        self.view = EvalView(int(card["image_size"]), mean, std, card.get("eval_resize"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input: (C, H, W)."""
        return self.channels, self.view.size, self.view.size

    def __call__(self, image: Any) -> Tensor:
        shown = self.view.crop(_pixels(image, self.channels, self.value_range))
        return self.view.normalize(shown.unsqueeze(0))[0].contiguous()

    def __repr__(self) -> str:
        view = self.view
        return f"ImageTransform(image_size={view.size}, resize={view.resize}, channels={self.channels})"


class TimmTransform:
    """The same by the evaluation transform that timm has for one of its networks."""

    kind = IMAGES

    def __init__(self, name: str) -> None:
        from timm import get_pretrained_cfg
        from timm.data import create_transform, resolve_data_config

        found = get_pretrained_cfg(name)
        self.config = resolve_data_config({}, pretrained_cfg=found.to_dict() if found else {})
        self.channels = int(self.config["input_size"][0])
        self.steps = create_transform(**self.config, is_training=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.config["input_size"])

    def __call__(self, image: Any) -> Tensor:
        shown = _pixels(image, self.channels, None).numpy()
        found: Tensor = self.steps(Image.fromarray(shown[..., 0] if self.channels == 1 else shown))
        return found

    def __repr__(self) -> str:
        return f"TimmTransform({self.config})"


def of_card(card: Mapping[str, Any]) -> ImageTransform | TimmTransform | None:
    """The transform of a network with this card; None where the card does not say how images are fed."""
    if card.get("image_size"):
        return ImageTransform(card)
    method, name = str(card.get("method") or ""), str(card.get("backbone", {}).get("name") or "")
    if method.startswith(TIMM):
        return TimmTransform(name)
    if method.startswith(TORCHVISION):
        from torchvision import models

        found = models.get_model_weights(name)["DEFAULT"].transforms()
        size, resize = found.crop_size[0], found.resize_size[0]
        return ImageTransform({"image_size": size, "eval_resize": resize, "mean": found.mean, "std": found.std})
    return None


def _pixels(image: Any, channels: int, value_range: depth.Range | None) -> Tensor:
    """Any picture as uint8 (H, W, channels)."""
    name = ""
    try:
        if isinstance(image, str | os.PathLike):
            name = os.path.expanduser(os.fspath(image))
            return decode(name, channels, value_range)
        values = pixels.of_pil(image, channels) if isinstance(image, Image.Image) else _of_array(image, channels)
        if value_range is None and values.dtype.kind == "f" and values.size:
            inside = bool((values >= 0).all() and (values <= 1).all())
            value_range = (0.0, 1.0) if inside else None
        shown = depth.with_channels(depth.to_bytes(values, value_range), channels)
        return torch.from_numpy(np.require(shown, requirements=["C", "W"]))
    except depth.WrongChannels as error:
        what = str(error).partition(";")[0].replace("data.channels is", "the network takes")
        raise UserError(f"{name or 'this image'}: {what}") from error
    except BROKEN as error:
        raise UserError(f"{name or 'this image'} cannot be read as an image: {error}") from error


def _of_array(image: Any, channels: int) -> np.ndarray:
    """(H, W, C) of an array or a tensor."""
    tensor = isinstance(image, Tensor)
    values = image.detach().cpu().numpy() if tensor else np.asarray(image)
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf" or 0 in values.shape:
        what = f"{type(image).__name__} of {values.dtype} {values.shape}"
        raise UserError(f"{what} is not an image; give a path, a PIL image, an array (H, W, C) or a tensor (C, H, W)")
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * 255
    if values.ndim == 2:
        return values[..., None]
    known = {channels, 1, 3} if channels in (1, 3) else {channels}
    first, last = values.shape[0] in known, values.shape[-1] in known
    channels_first = first if tensor else first and not last
    return values.transpose(1, 2, 0) if channels_first or (tensor and not last) else values
