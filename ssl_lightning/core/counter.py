"""Random numbers as a pure function of a counter: the same views in any batch, on any rank, after a resume.

The mixing function is the finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators", https://doi.org/10.1145/2660193.2660195), written in int64, whose products wrap as those of uint64 do.
"""

import torch
from torch import Tensor

METHOD_STREAM = 1000  # of what a method draws for an image (masks, tiles); each view has a small number of its own
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _signed(x: int) -> int:
    """The int64 with the same 64 bits."""
    x &= _MASK
    return x - (1 << 64) if x >> 63 else x


def _mix_int(x: int) -> int:
    x &= _MASK
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
    return x ^ (x >> 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: int64's own shift copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX_2)
    return x ^ _shift(x, 31)


def uniform(seed: int, epoch: int, indices: Tensor, stream: int, n: int) -> Tensor:
    """`n` numbers in [0, 1) for each index: float32 (B, n) on the device of `indices` (B,), in steps of 2^-24.

    A pure function of (seed, epoch, index, stream) and the place in the row; row i does not depend on the other rows,
    and the first n numbers are the same whatever `n` is. `stream` keeps apart the users of one index (one view each).

    >>> uniform(0, 0, torch.tensor([7, 8]), stream=0, n=2).shape
    torch.Size([2, 2])
    """
    key = _mix_int(_mix_int(_mix_int(seed + _GOLDEN) + epoch * _GOLDEN) + stream * _GOLDEN)
    rows = _mix(indices.to(torch.int64) * _signed(_GOLDEN) + _signed(key))  # (B,)
    places = torch.arange(1, n + 1, dtype=torch.int64, device=indices.device) * _signed(_GOLDEN)  # (n,)
    bits = _shift(_mix(rows.unsqueeze(1) + places), 40)  # (B, n), 24 bits: float32 holds them exactly
    return bits.to(torch.float32) * 2.0**-24
