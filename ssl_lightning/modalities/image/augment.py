"""The image operations of the views, batched: equal to torchvision's, with its own parameters for each sample.

Images are float (B, C, h, w) in [0, 1], C = 3 where colours are turned; a parameter is a tensor (B,). Every operation
returns a new tensor, runs on the device of its input and does the same work for each sample, so that a sample's result
does not depend on its batch.

Two things make them fast on a CPU. Resampling and blur are products with small matrices: crop, antialiased resize and
flip together are `rows @ image @ columns`. And samples that drew an operation are sorted together, so that it is
computed for them only, on one slice of memory.
"""

from collections.abc import Callable

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # weights of R, G, B in torchvision and PIL
BLOCK = 64  # pixels of a line that one product of a blur makes: its matrix has weights near the diagonal only
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # ColorJitter's numbers for its operations


def _can_sort(x: Tensor) -> bool:
    """Elsewhere, to ask how many samples drew something stops the host until the device is there, or cuts a graph."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def on_rows(x: Tensor, rows: Tensor, op: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """`x` with `op(x, *parameters)` in the samples where `rows` (B,) is True.

    On a CPU only these are computed; elsewhere all are, and the result is selected.
    """
    if not _can_sort(x):
        return torch.where(rows.view(-1, 1, 1, 1), op(x, *parameters), x)
    order = rows.int().argsort(stable=True)  # those with `op` last
    rest = len(rows) - int(rows.sum())
    x, chosen = x.index_select(0, order), order[rest:]
    if len(chosen):
        x[rest:] = op(x[rest:], *(p[chosen] for p in parameters))
    return x.index_select(0, order.argsort())


# --- geometry --------------------------------------------------------------------------------------------------------


def resize_matrix(start: Tensor, length: Tensor, flip: Tensor, source: int, target: int, cubic: bool = False) -> Tensor:
    """Weights (B, target, source) that resize the pixels [start, start + length) of a line of `source` to `target`.

    The antialiased filters of torch's `interpolate(antialias=True)` and of PIL: a triangle (bilinear) or Keys' cubic
    (bicubic, a = -0.5), as wide as one target pixel where the line shrinks and one source pixel wide where it grows,
    normalised within the window. Where `flip` (B,) is True the target runs backwards.
    """
    start, length = start.view(-1, 1, 1).float(), length.view(-1, 1, 1).float()
    scale = length / target
    to = torch.arange(target, device=start.device, dtype=torch.float32).view(1, -1, 1)
    centre = (torch.where(flip.view(-1, 1, 1), target - 1 - to, to) + 0.5) * scale  # (B, target, 1)
    pixel = torch.arange(source, device=start.device, dtype=torch.float32).view(1, 1, -1) - start  # (B, 1, source)
    inside = ((pixel >= 0) & (pixel < length)).float()
    distance = (pixel + 0.5 - centre).abs_().div_(scale.clamp(min=1))
    weights = (_cubic(distance) if cubic else distance.neg_().add_(1).clamp_(min=0)).mul_(inside)
    return weights.div_(weights.sum(2, keepdim=True))


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic (a = -0.5) of distances x >= 0 in pixels: 1 at 0, 0 at 1, below it up to 2, 0 from there on."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far * (x < 2))


def resized_crop(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    flip: Tensor,
    size: int,
    cubic: bool = False,
) -> Tensor:
    """uint8 (B, H, W, C) -> float (B, C, size, size) in [0, 1]: crop, antialiased resize and flip as one.

    `cubic`: bicubic instead of bilinear. It overshoots at edges; what leaves [0, 1] is cut off, as in PIL.
    """
    batch, in_height, in_width, channels = images.shape
    rows = resize_matrix(top, height, torch.zeros_like(flip), in_height, size, cubic)
    columns = resize_matrix(left, width, flip, in_width, size, cubic)
    x = torch.bmm(rows, images.flatten(2).float())  # (B, size, W * C)
    x = x.view(batch, size, in_width, channels).permute(0, 3, 1, 2).reshape(batch, channels * size, in_width)
    x = torch.bmm(x, columns.transpose(1, 2)).div_(255).view(batch, channels, size, size)
    return x.clamp_(0, 1) if cubic else x


def blur_kernel_size(size: int) -> int:
    """A tenth of the image (SimCLR's appendix A, https://arxiv.org/abs/2002.05709) and odd: 3 at 32, 23 at 224."""
    return max(3, int(0.1 * size) | 1)


def blur_matrix(sigma: Tensor, size: int, kernel_size: int) -> Tensor:
    """Weights (B, size, size) that blur a line with a Gaussian of each `sigma` (B,), reflected at the ends."""
    reach = kernel_size // 2
    distance = torch.arange(reach + 1, device=sigma.device)
    taps = torch.exp(-0.5 * (distance / sigma.view(-1, 1)) ** 2)  # (B, reach + 1)
    taps = taps / (2 * taps.sum(1, keepdim=True) - taps[:, :1])  # the centre once, the others on both sides
    # Denormal weights (sigma well under a pixel) make a CPU's products ten times slower; these change no pixel.
    taps = taps * (taps > 1e-7)
    line = torch.nn.functional.pad(taps, (0, 2 * size - 2 - reach))  # (B, 2 * size - 1), by distance
    both_sides = torch.cat([line[:, 1:size].flip(1), line[:, :size]], 1)  # at -(size - 1) ... size - 1
    weights = both_sides.unfold(1, size, 1).flip(1)  # [i, j]: at j - i
    # A pixel is met a second time behind either end, at i + j and at 2 * (size - 1) - i - j; the end itself is not.
    behind = line.unfold(1, size, 1)
    weights[:, :, 1:] += behind[:, :, 1:]
    weights[:, :, :-1] += behind.flip(1, 2)[:, :, :-1]
    return weights


def _bands(size: int, reach: int) -> list[tuple[slice, slice]]:
    """The blocks of a line of `size` pixels, each with the pixels in its reach: all of `blur_matrix` lies there."""
    starts = range(0, size, BLOCK)
    return [(slice(s, s + BLOCK), slice(max(0, s - reach), min(size, s + BLOCK + reach))) for s in starts]


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Gaussian blur with each sample's own `sigma` (B,) in pixels; `kernel_size` is odd and under twice the image."""
    height, width = x.shape[2:]
    matrix = blur_matrix(sigma, width, kernel_size)
    columns = matrix.transpose(1, 2)  # (B, from, to)
    rows = (matrix if height == width else blur_matrix(sigma, height, kernel_size)).unsqueeze(1)  # (B, 1, to, from)
    lines = x.flatten(1, 2)  # (B, 3 * h, w)
    reach = kernel_size // 2
    across = [torch.bmm(lines[:, :, near], columns[:, near, to]) for to, near in _bands(width, reach)]
    x = torch.cat(across, 2).view(x.shape)
    return torch.cat([rows[:, :, to, near] @ x[:, :, near] for to, near in _bands(height, reach)], 2)


# --- colour ----------------------------------------------------------------------------------------------------------


def grey(x: Tensor) -> Tensor:
    """Luma (B, h, w); of other channels than red, green and blue the mean."""
    if x.shape[1] != 3:
        return x.mean(1)
    r, g, b = x.unbind(1)
    return (r * GREY[0]).add_(g * GREY[1]).add_(b * GREY[2])


def _blend(x: Tensor, factor: Tensor, with_grey: Tensor, with_mean: Tensor) -> Tensor:
    """factor * x + with_grey * luma + with_mean * mean luma, kept in [0, 1]: the one form of the three blends below."""
    luma = grey(x)
    mean = luma.mean((1, 2))
    luma = luma.mul_(with_grey.view(-1, 1, 1)).add_((with_mean * mean).view(-1, 1, 1))
    return (x * factor.view(-1, 1, 1, 1)).add_(luma.unsqueeze(1)).clamp_(0, 1)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with black: factor * x."""
    return _blend(x, factor, torch.zeros_like(factor), torch.zeros_like(factor))


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of the image's luma."""
    return _blend(x, factor, torch.zeros_like(factor), 1 - factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's luma."""
    return _blend(x, factor, 1 - factor, torch.zeros_like(factor))


def hue(x: Tensor, factor: Tensor) -> Tensor:
    """Turn each pixel's hue by `factor` (B,) of a full turn, in [-0.5, 0.5]; HSV's saturation and value stay."""
    r, g, b = x.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = value - low
    # Six times the hue, times chroma: counted from the place of the largest channel, red before green before blue.
    # (`eq_` writes 0.0 and 1.0, and `lerp` chooses between them: ten times faster on a CPU than `where` with a mask.)
    sixths = torch.lerp((r - g).add_(chroma * 4), (b - r).add_(chroma * 2), value.clone().eq_(g))
    sixths = torch.lerp(sixths, g - b, value.eq_(r))
    turn = sixths.div_(chroma.clamp(min=1e-12)).mul_(1 / 6).add_(factor.view(-1, 1, 1))
    turn = turn.sub_(turn.floor()).mul_(6)  # the new hue in [0, 6)
    # Each channel is a trapezoid of the hue: full around its own place, at its lowest on the other side.
    red = (turn - 3).abs_().sub_(1)
    green = (turn - 2).abs_().neg_().add_(2)
    blue = (turn - 4).abs_().neg_().add_(2)
    return torch.stack([c.clamp_(0, 1).mul_(chroma).add_(low) for c in (red, green, blue)], 1)


def jitter(x: Tensor, rows: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of the samples in `rows` (B,), each sample in its own order.

    `order` (B, 4) holds the operations' numbers (`BRIGHTNESS`, ... `HUE`) as they follow each other, `factors` (B, 4)
    their parameters in the order of these numbers. At each of the four places one blend serves three of the operations
    with per-sample weights; samples that turn their hue there pass through it unchanged and are turned after it.
    Channels other than red, green and blue have neither saturation nor hue: those two leave them as they are.
    """
    if x.shape[1] != 3:
        return _jitter_without_colour(x, rows, order, factors)
    hue_place = torch.where(rows, (order == HUE).int().argmax(1), 4)  # 4: no jitter
    ends = [0] * 4
    back = None
    if _can_sort(x):
        sort = hue_place.argsort(stable=True)
        ends, back = hue_place.bincount(minlength=5).cumsum(0).tolist(), sort.argsort()
        x, rows, order, factors, hue_place = (t.index_select(0, sort) for t in (x, rows, order, factors, hue_place))
    for place in range(4):
        op = order[:, place]
        factor = factors.gather(1, op.unsqueeze(1)).squeeze(1)
        factor = torch.where(rows & (op != HUE), factor, 1.0)
        x = _blend(x, factor, (1 - factor) * (op == SATURATION), (1 - factor) * (op == CONTRAST))
        if back is None:
            x = torch.where((hue_place == place).view(-1, 1, 1, 1), hue(x, factors[:, HUE]), x)
        else:
            turned = slice(ends[place - 1] if place else 0, ends[place])
            x[turned] = hue(x[turned], factors[turned, HUE])
    return x if back is None else x.index_select(0, back)


def _jitter_without_colour(x: Tensor, rows: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """`jitter` of images whose channels are no colours: brightness and contrast, in each sample's own order."""
    for place in range(4):
        op = order[:, place]
        factor = factors.gather(1, op.unsqueeze(1)).squeeze(1)
        factor = torch.where(rows & (op <= CONTRAST), factor, 1.0)
        x = _blend(x, factor, torch.zeros_like(factor), (1 - factor) * (op == CONTRAST))
    return x


def grayscale(x: Tensor) -> Tensor:
    """Luma in all three channels."""
    return grey(x).unsqueeze(1).expand_as(x)


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Invert the values at or above `threshold`."""
    return torch.lerp(x, 1 - x, x.clone().ge_(threshold))


def normalize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(x - mean) / std with `mean` and `std` (C, 1, 1)."""
    return (x - mean).div_(std)
