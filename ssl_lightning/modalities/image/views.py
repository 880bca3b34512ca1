"""The view engines: `DeviceViews` for a batch, `WorkerCrops` and `WorkerViews` for one image, `EvalView`.

All draw the same parameters for the same (seed, epoch, index, view): the engine changes the speed and nothing else.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image import augment, augment_one, operation
from ssl_lightning.modalities.image.draw import (
    Colours,
    Crops,
    LocalView,
    View,
    Views,
    Windows,
    draw_colours,
    draw_crops,
    draw_windows,
)
from ssl_lightning.modalities.image.resize import resize, resized_centre

__all__ = ["DeviceViews", "EvalView", "LocalView", "View", "Views", "WorkerCrops", "WorkerViews"]

CHUNK_PIXELS = 256 * 32 * 32  # a CPU works on so many at once: they stay in its cache, and calls cost little


def _channels(values: Sequence[float], device: torch.device) -> Tensor:
    """(C, 1, 1), filled on the device: a copy from the host would stop it."""
    return torch.stack([torch.full((1, 1), v, device=device) for v in values])


def colour(x: Tensor, view: View, draw: Colours) -> Tensor:
    """Jitter, greyscale, blur and solarize of float images (B, C, h, w) in [0, 1], in SimCLR's and BYOL's order.

    Where the channels are not red, green and blue there is no grey, hue or saturation: see `augment.jitter`. `x` may be
    changed.
    """
    if augment_one.suits(x):
        return augment_one.colour(x, view, draw)
    if view.jitter_p > 0:
        x = augment.jitter(x, draw.jitter, draw.order, draw.factors)
    if view.grayscale_p > 0 and x.shape[1] == 3:
        x = augment.on_rows(x, draw.grayscale, augment.grayscale)
    if view.blur_p > 0:
        kernel_size = augment.blur_kernel_size(view.size)
        x = augment.on_rows(x, draw.blur, lambda x, sigma: augment.gaussian_blur(x, sigma, kernel_size), draw.sigma)
    if view.solarize_p > 0:
        x = augment.on_rows(x, draw.solarize, lambda x: augment.solarize(x, view.solarize_threshold))
    return x


def apply(images: Tensor, view: View, crops: Crops | None, colours: Colours, mean: Tensor, std: Tensor) -> Tensor:
    """One view of uint8 (B, H, W, C): float (B, C, size, size), normalised. `crops` is None where images are crops."""
    if crops is None:
        x = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    else:
        window = (crops.top, crops.left, crops.height, crops.width, crops.flip)
        x = augment.resized_crop(images, *window, view.size, view.interpolation == "bicubic")
    x = operation.run(x, view.also, colours.also, geometric=True)
    x = colour(x, view, colours)
    return augment.normalize(operation.run(x, view.also, colours.also, geometric=False), mean, std)


class DeviceViews:
    """All views of a batch in one pass on the device of its images, each sample with its own parameters.

    `views(images, indices, epoch)` takes uint8 (B, H, W, C), or one uint8 (B, size, size, C) per view where
    `WorkerCrops` has already cropped and flipped, and returns float (B, C, size, size) per view, normalised, in
    channels_last memory; C is the length of `mean`. `.work` is `apply`; a benchmark puts `torch.compile(apply)` there.
    """

    def __init__(self, views: Views, mean: Sequence[float], std: Sequence[float], seed: int):
        self.views, self.mean, self.std, self.seed = views.list(), tuple(mean), tuple(std), seed
        self.roles = views.roles()  # of what a call returns, in order
        self.work = apply

    @torch.no_grad()
    def __call__(self, images: Tensor | Sequence[Tensor], indices: Tensor, epoch: int) -> list[Tensor]:
        cropped = not isinstance(images, Tensor)
        sources = [images] * len(self.views) if isinstance(images, Tensor) else list(images)
        if len(sources) != len(self.views):
            raise UserError(f"{len(sources)} cropped batches for {len(self.views)} views; crop with the same views")
        for source in sources:
            if source.dtype != torch.uint8 or source.ndim != 4 or source.shape[3] != len(self.mean):
                wanted = f"(B, H, W, {len(self.mean)})"
                raise UserError(f"images are {source.dtype} {tuple(source.shape)}; give uint8 {wanted}")
        indices = indices.to(sources[0].device)
        return [self._view(place, source, indices, epoch, cropped) for place, source in enumerate(sources)]

    def _view(self, place: int, images: Tensor, indices: Tensor, epoch: int, cropped: bool) -> Tensor:
        view, device = self.views[place], images.device
        (count, height, width, channels), size = images.shape, view.size
        mean, std = _channels(self.mean, device), _channels(self.std, device)
        out = torch.empty(count, size, size, channels, device=device)
        large = augment_one.is_large(device, size * size) and channels == 3
        pixels = max(size * size, height * width)
        chunk = 1 if large else max(1, CHUNK_PIXELS // pixels) if device.type == "cpu" else count
        # Mixed precision is for the network: views are drawn in float32.
        with torch.autocast(device.type, enabled=False):
            crops = None if cropped else draw_crops(view, place, height, width, self.seed, epoch, indices)
            colours = draw_colours(view, place, self.seed, epoch, indices)

            def work(rows: slice) -> None:
                some = None if crops is None else crops.at(rows)
                out[rows] = self.work(images[rows], view, some, colours.at(rows), mean, std).permute(0, 2, 3, 1)

            chunks = [slice(start, start + chunk) for start in range(0, count, chunk)]
            if large:
                augment_one.each(work, chunks)
            else:
                for rows in chunks:
                    work(rows)
        return out.permute(0, 3, 1, 2)


class WorkerCrops:
    """Crop, antialiased resize and flip of one uint8 image (H, W, 3) of any size, with `DeviceViews`' own draws.

    Returns uint8 (size, size, 3) per view; `DeviceViews` does the colours of the batch. `draw` takes the indices of a
    whole batch, and `apply` what it gives for one of them: drawing for one image costs as much as for a hundred.
    """

    def __init__(self, views: Views, seed: int):
        self.views, self.seed = views.list(), seed

    def draw(self, indices: Tensor, epoch: int) -> list[tuple[Windows, ...]]:
        """For each index, one function per view from an image's (height, width) to its window."""
        each = [draw_windows(view, place, self.seed, epoch, indices) for place, view in enumerate(self.views)]
        return list(zip(*each, strict=True))

    @torch.no_grad()
    def apply(self, image: Tensor, drawn: tuple[Windows, ...]) -> list[Tensor]:
        height, width, _ = image.shape
        out = []
        for view, window in zip(self.views, drawn, strict=True):
            top, left, h, w, flip = window(height, width)
            crop = resize(image[top : top + h, left : left + w], view.size, view.size, view.interpolation)
            out.append(crop.flip(1) if flip else crop)
        return out

    def __call__(self, image: Tensor, index: int, epoch: int) -> list[Tensor]:
        return self.apply(image, self.draw(torch.tensor([index]), epoch)[0])


class WorkerViews:
    """The reference: all of a view for one image with torchvision's own functions, and `DeviceViews`' own draws.

    Takes uint8 (H, W, 3), returns float (3, size, size) per view, normalised.
    """

    def __init__(self, views: Views, mean: Sequence[float], std: Sequence[float], seed: int):
        self.views, self.mean, self.std, self.seed = views.list(), list(mean), list(std), seed

    def draw(self, indices: Tensor, epoch: int) -> list[tuple[tuple[Windows, Colours], ...]]:
        """For each index, one pair per view."""
        each = []
        for place, view in enumerate(self.views):
            windows = draw_windows(view, place, self.seed, epoch, indices)
            colours = draw_colours(view, place, self.seed, epoch, indices)
            each.append([(window, colours.at(slice(i, i + 1))) for i, window in enumerate(windows)])
        return list(zip(*each, strict=True))

    @torch.no_grad()
    def apply(self, image: Tensor, drawn: tuple[tuple[Windows, Colours], ...]) -> list[Tensor]:
        from torchvision.transforms.v2 import functional as F  # two seconds to import: for this engine's users only

        height, width, _ = image.shape
        x = image.permute(2, 0, 1).contiguous().float() / 255
        out = []
        for view, (window, colours) in zip(self.views, drawn, strict=True):
            top, left, h, w, flip = window(height, width)
            mode = F.InterpolationMode(view.interpolation)
            y = F.resized_crop(x, top, left, h, w, [view.size, view.size], mode, antialias=True)
            y = y.clamp(0, 1)  # bicubic overshoots
            y = F.horizontal_flip(y) if flip else y
            y = operation.run(y[None], view.also, colours.also, geometric=True)[0]
            y = self._colour(y, view, colours)
            y = operation.run(y[None], view.also, colours.also, geometric=False)[0]
            out.append(F.normalize(y, self.mean, self.std))
        return out

    def __call__(self, image: Tensor, index: int, epoch: int) -> list[Tensor]:
        return self.apply(image, self.draw(torch.tensor([index]), epoch)[0])

    @staticmethod
    def _colour(x: Tensor, view: View, draw: Colours) -> Tensor:
        from torchvision.transforms.v2 import functional as F

        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        rgb = x.shape[0] == 3
        if draw.jitter:
            for k in draw.order[0].tolist():
                factor = float(draw.factors[0, k])
                if rgb:
                    x = adjust[k](x, factor)
                elif k in (augment.BRIGHTNESS, augment.CONTRAST):  # torchvision's take colours and grey alone
                    x = torch.lerp(x.mean() * (k == augment.CONTRAST), x, factor).clamp(0, 1)
        if draw.grayscale and rgb:
            x = F.rgb_to_grayscale(x, num_output_channels=3)
        if draw.blur:
            kernel_size = augment.blur_kernel_size(view.size)
            x = F.gaussian_blur(x, [kernel_size, kernel_size], [float(draw.sigma)] * 2)
        return F.solarize(x, view.solarize_threshold) if draw.solarize else x


class EvalView:
    """The one deterministic view of evaluation: shorter side to `resize` (None: `size`), centre crop, normalise."""

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], resize: int | None = None):
        if resize is not None and resize < size:
            raise UserError(
                f"data.eval_resize={resize} is smaller than data.image_size={size}, which is cropped from it; "
                "give as much or more (256 for 224)"
            )
        self.size, self.mean, self.std = size, tuple(mean), tuple(std)
        self.resize = size if resize is None else resize

    def smaller(self, size: int) -> "EvalView":
        """The same part of an image with another side."""
        return EvalView(size, self.mean, self.std, round(size * self.resize / self.size))

    def leaves_alone(self, height: int, width: int) -> bool:
        """Whether images of this size are the evaluation crop as they are."""
        return (height, width) == (self.size, self.size) and self.resize == self.size

    @torch.no_grad()
    def crop(self, image: Tensor) -> Tensor:
        """uint8 (H, W, C) -> uint8 (size, size, C), antialiased; untouched when it is that already."""
        return resized_centre(image, self.resize, self.size)

    @torch.no_grad()
    def normalize(self, batch: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float (B, 3, H, W), normalised, in channels_last memory."""
        x = batch.permute(0, 3, 1, 2).float().div_(255)
        return augment.normalize(x, _channels(self.mean, x.device), _channels(self.std, x.device))
