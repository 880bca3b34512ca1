"""The colours of large images on a CPU: `augment`'s operations for one image after the other, each only where drawn.

A batch of large images does not stay in a CPU's cache, and computing every blend for every sample costs more there than
calls do. One image does stay: each operation runs in place on it. The results are `augment`'s, to float32's rounding.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from ssl_lightning.modalities.image import augment
from ssl_lightning.modalities.image.draw import Colours, View

SMALLEST = 112 * 112  # pixels: below it the calls cost as much as the work, and `augment` does a batch at once

Item = TypeVar("Item")


def suits(x: Tensor) -> bool:
    """True for large images (B, 3, h, w) on a CPU, outside of a compiler."""
    return is_large(x.device, x.shape[2] * x.shape[3]) and x.shape[1] == 3 and not torch.compiler.is_compiling()


def is_large(device: torch.device, pixels: int) -> bool:
    """True where images are worked on one by one."""
    return device.type == "cpu" and pixels >= SMALLEST


def colour(x: Tensor, view: View, draw: Colours) -> Tensor:
    """Jitter, greyscale, blur and solarize of float images (B, 3, h, w) in [0, 1]; `x` itself is changed."""
    before = (d.tolist() for d in (draw.jitter, draw.order, draw.factors, draw.grayscale))
    for drawn in zip(x, *before, draw.blur.tolist(), draw.sigma, draw.solarize.tolist(), strict=True):
        _colour(view, *drawn)
    return x


def _colour(
    view: View,
    x: Tensor,
    jitter: bool,
    order: list[int],
    factors: list[float],
    grayscale: bool,
    blur: bool,
    sigma: Tensor,
    solarize: bool,
) -> None:
    """One image (3, h, w), in place."""
    if jitter:
        for op in order:
            OPERATIONS[op](x, factors[op])
    if grayscale:
        x.copy_(_luma(x).expand_as(x))
    if blur:
        kernel_size = augment.blur_kernel_size(view.size)
        x.copy_(augment.gaussian_blur(x.unsqueeze(0), sigma.view(1), kernel_size)[0])
    if solarize:
        x.copy_(augment.solarize(x, view.solarize_threshold))


def _luma(x: Tensor) -> Tensor:
    return augment.grey(x.unsqueeze(0))[0]


def brightness(x: Tensor, factor: float) -> None:
    """Blend with black."""
    x.mul_(factor).clamp_(0, 1)


def contrast(x: Tensor, factor: float) -> None:
    """Blend with the mean of the image's luma."""
    mean = sum(weight * channel for weight, channel in zip(augment.GREY, x.mean((1, 2)).tolist(), strict=True))
    x.mul_(factor).add_((1 - factor) * mean).clamp_(0, 1)


def saturation(x: Tensor, factor: float) -> None:
    """Blend with the image's luma."""
    luma = _luma(x).mul_(1 - factor)
    x.mul_(factor).add_(luma).clamp_(0, 1)


def hue(x: Tensor, factor: float) -> None:
    """Turn each pixel's hue by `factor` of a full turn."""
    x.copy_(augment.hue(x.unsqueeze(0), torch.tensor([factor]))[0])


OPERATIONS: tuple[Callable[[Tensor, float], None], ...] = (brightness, contrast, saturation, hue)


def each(work: Callable[[Item], None], items: Sequence[Item]) -> None:
    """`work` on each item, by as many threads as torch may use, each with one: an image is too small to be shared.

    Beside busy data workers, threads that share one operation spend their time waiting for each other.
    """
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def alone(item: Item) -> None:  # these modes belong to a thread
        with torch.inference_mode(inference), torch.no_grad():
            work(item)

    with _one_thread_each():
        if threads == 1 or len(items) == 1:
            for item in items:
                work(item)
        else:
            list(_pool(threads, os.getpid()).map(alone, items))


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # A forked process has not its parent's threads, and would wait for them: hence one pool for each.
    # A thread takes over torch's number when it first needs it, which is in `each`, and keeps it.
    return ThreadPoolExecutor(threads, "views")


@contextmanager
def _one_thread_each() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
