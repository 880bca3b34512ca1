"""JPEG files through torchvision's decoder: the pixels that PIL gives, in two thirds of its time.

Both call libjpeg-turbo, with the same settings, so the result is the same to the bit; this is tried out on a picture
once per process before it is relied on. Whatever is unusual stays with PIL: CMYK, rare colour sampling, and each file
that torchvision refuses, so that PIL decides what is broken. So does everything where torchvision has no such decoder;
from 0.29 on it says that it will be removed.
"""

from functools import cache
from io import BytesIO

import numpy as np
import torch
from PIL import Image, JpegImagePlugin
from torch import Tensor

RGB = 3  # torchvision's ImageReadMode
LARGEST = 64 * 1024**2  # bytes: PIL reads larger files piece by piece


def decode_jpeg(image: Image.Image) -> Tensor | None:
    """What `image.convert("RGB")` would give of an opened file, uint8 (H, W, 3); None when it is for PIL to decode.

    EXIF's orientation is not looked at, as PIL does not.
    """
    file = getattr(image, "fp", None)  # of each picture that comes from a file
    if file is None or not _is_plain(image) or not same_as_pil():
        return None
    file.seek(0)
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        return None
    pixels = _by_torchvision(data)
    return pixels if pixels is not None and pixels.shape == (image.height, image.width, 3) else None


def _is_plain(image: Image.Image) -> bool:
    """A grey or colour JPEG, of a colour sampling that `same_as_pil` has tried."""
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        return False
    return image.mode == "L" or JpegImagePlugin.get_sampling(image) >= 0


def _by_torchvision(data: bytes) -> Tensor | None:
    try:
        # The operator itself: the function around it warns of its end for each file.
        pixels = torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), RGB, False)
    except (RuntimeError, ValueError, AttributeError):  # a damaged file, or a torchvision without a decoder
        return None
    return pixels.permute(1, 2, 0).contiguous()  # it lies in memory as (H, W, 3) already


@cache
def same_as_pil() -> bool:
    """True when torchvision and PIL decode a picture, in each colour sampling that PIL writes, to the same pixels."""
    try:
        import torchvision.io.image  # noqa: F401 (brings the operator)
    except ImportError:
        return False
    coarse = Image.fromarray((np.arange(9 * 9 * 3) * 97 % 251).astype(np.uint8).reshape(9, 9, 3))
    picture = coarse.resize((41, 35), Image.Resampling.BICUBIC)
    for sampling in range(3):
        for mode in ("RGB", "L"):
            file = BytesIO()
            picture.convert(mode).save(file, "JPEG", quality=85, subsampling=sampling)
            ours, theirs = _by_torchvision(file.getvalue()), np.array(Image.open(file).convert("RGB"))
            if ours is None or not torch.equal(ours, torch.from_numpy(theirs)):
                return False
    return True
