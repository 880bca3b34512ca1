"""Attention as segmentation: does the class token look at the objects? DINO, section 4.2.2 and figure 4.

Caron et al. 2021, https://arxiv.org/abs/2104.14294.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

IGNORED = 255


def mass_masks(attention: Tensor, mass: float = 0.6) -> Tensor:
    """Maps (B, H, h, w) of H heads -> the places that hold `mass` of each, bool, the strongest first.

    As few as can be: the one that passes the share is still in. At least one place is.
    """
    flat = attention.flatten(2).double()  # (B, H, N)
    values, order = flat.sort(dim=2, descending=True, stable=True)
    share = values.cumsum(2) / values.sum(2, keepdim=True).clamp_min(1e-12)
    kept = share - values / values.sum(2, keepdim=True).clamp_min(1e-12) < mass  # what lies before it is not enough yet
    return torch.zeros_like(kept).scatter(2, order, kept).view(attention.shape)


def best_overlap(attention: Tensor, classes: Tensor, mass: float = 0.6) -> Tensor:
    """(B,) float64, of each image the Jaccard index of its objects and the head that fits best.

    Args:
        attention: (B, H, h, w).
        classes: (B, S, S) uint8 of the pixels: 0 the ground, 255 counts nowhere, else an object; with no object NaN.
    """
    said = interpolate(mass_masks(attention, mass).float(), size=classes.shape[1:], mode="nearest").bool()
    counts, true = (classes != IGNORED)[:, None], ((classes > 0) & (classes != IGNORED))[:, None]
    both = (said & true).flatten(2).sum(2).double()  # (B, H)
    either = ((said | true) & counts).flatten(2).sum(2).double()
    found = (both / either.clamp_min(1)).amax(1)
    return found.masked_fill(~true.flatten(1).any(1), torch.nan)
