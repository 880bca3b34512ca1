"""Antialiased resizing of one uint8 image, and the centre of a resized one without resizing the rest."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

PARTS = 4  # a resized image of more crops than this is not made whole: a line of 1 x 8000 pixels would fill gigabytes


def resize(image: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """Antialiased, uint8 (H, W, C) -> (height, width, C); untouched where the size is already right."""
    if image.shape[:2] == (height, width):
        return image.contiguous()
    x = image.permute(2, 0, 1).unsqueeze(0)
    x = interpolate(x, (height, width), mode=mode, antialias=True, align_corners=False)
    return x.squeeze(0).permute(1, 2, 0).contiguous()


def resized_centre(image: Tensor, shorter: int, size: int) -> Tensor:
    """The central `size` x `size` pixels of uint8 (H, W, C) after its shorter side is resized to `shorter`.

    Where a long image grows, only the source pixels under the crop and its filter are resized: the same pixels to one
    level of 255, whatever the length.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    to_height, to_width = shorter * height // short, shorter * width // short
    top, left = round((to_height - size) / 2), round((to_width - size) / 2)
    if to_height * to_width <= max(PARTS * size * size, height * width):
        return resize(image, to_height, to_width)[top : top + size, left : left + size].contiguous()
    if width >= height:
        columns, weights = _under(width, to_width, left, size)
        wide = _weighted(weights, image[:, columns].transpose(0, 1)).transpose(0, 1)
        return resize(wide, to_height, size)[top : top + size].contiguous()
    rows, weights = _under(height, to_height, top, size)
    part = image[rows]
    return _weighted(weights, resize(part, len(part), to_width)[:, left : left + size])


def _under(length: int, to: int, first: int, count: int) -> tuple[slice, Tensor]:
    """Of a line of `length` resized to `to`, the pixels under `count` results from `first` on, and their weights.

    In float64: the results of a long line are counted in millions.
    """
    scale = length / to
    reach = max(scale, 1.0)  # of the filter, in source pixels
    low = max(0, int((first + 0.5) * scale - reach))
    high = min(length, int((first + count - 0.5) * scale + reach) + 1)
    centre = (torch.arange(first, first + count, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(low, high, dtype=torch.float64) + 0.5 - centre.unsqueeze(1)).abs_()
    weights = (1 - distance / reach).clamp_(min=0)
    return slice(low, high), (weights / weights.sum(1, keepdim=True)).float()  # (count, high - low)


def _weighted(weights: Tensor, image: Tensor) -> Tensor:
    """(to, from) @ uint8 (from, W, C) -> uint8 (to, W, C)."""
    out = weights @ image.flatten(1).float()
    return out.round_().clamp_(0, 255).to(torch.uint8).view(len(weights), *image.shape[1:])
