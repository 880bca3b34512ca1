"""A wave or a log-mel as a picture, for pages and galleries."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

SIDE = 128  # pixels that a picture's shorter side has at least
INK, PAPER = (38, 70, 140), (255, 255, 255)
LOW, HIGH = 0.01, 0.99  # shares of a spectrogram's values that are the darkest and the brightest


def show(item: Tensor, height: int = SIDE, width: int | None = None) -> Tensor:
    """A wave (1, L), or a log-mel (1, F, T) or (F, T), normalised or not, as a picture uint8 (3, height, width).

    Low frequencies are at the bottom. `width` None: as wide as it is high for waves, and for spectrograms as the frames
    are to the bands, once to three times the height.
    """
    item = item.detach().float().cpu()
    height = max(height, SIDE)
    if item.ndim == 2 and item.shape[0] == 1:
        return wave_picture(item[0], height, height if width is None else width)
    if item.ndim == 3:
        item = item[0]
    if width is None:
        width = round(height * min(max(item.shape[1] / item.shape[0], 1.0), 3.0))
    return spectrogram_picture(item, height, width)


def spectrogram_picture(x: Tensor, height: int, width: int) -> Tensor:
    """(F, T) -> uint8 (3, height, width) in matplotlib's magma, from the 1st to the 99th percentile."""
    from matplotlib import colormaps

    flat = x.flatten()
    low, high = (torch.quantile(flat[:: -(-len(flat) // 1_000_000)], share) for share in (LOW, HIGH))
    shades = ((x - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).flip(0)
    shrinks = height < x.shape[0] or width < x.shape[1]
    mode = {"mode": "bilinear", "antialias": True} if shrinks else {"mode": "nearest-exact"}
    shades = interpolate(shades[None, None], (height, width), **mode)[0, 0]  # type: ignore[arg-type]
    colours = torch.from_numpy(colormaps["magma"](shades.clamp(0, 1).numpy(), bytes=True))  # (height, width, 4)
    return colours[..., :3].permute(2, 0, 1).contiguous()


def wave_picture(x: Tensor, height: int, width: int) -> Tensor:
    """(L,) -> uint8 (3, height, width): in each column the span of its samples, the largest of all at the edge."""
    edges = torch.linspace(0, len(x), width + 1).long()
    peak = x.abs().max().clamp(min=1e-6)
    rows = torch.arange(height, dtype=torch.float32)
    picture = torch.tensor(PAPER, dtype=torch.uint8).view(3, 1, 1).repeat(1, height, width)
    ink = torch.tensor(INK, dtype=torch.uint8).view(3, 1)
    for column in range(width):
        first = min(int(edges[column]), len(x) - 1)
        part = x[first : max(int(edges[column + 1]), first + 1)] / peak
        top, bottom = ((1 - value) / 2 * (height - 1) for value in (float(part.max()), float(part.min())))
        inked = (rows >= top - 0.5) & (rows <= bottom + 0.5)
        picture[:, inked, column] = ink
    return picture
