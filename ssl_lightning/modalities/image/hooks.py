"""`ImageDataModule`: a source of images becomes training batches of views, and evaluation batches of one view."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.base import DataModule, Drawn, Loaded, Split
from ssl_lightning.data.batch import RawBatch
from ssl_lightning.data.loader import WORKER_TIMEOUT, BatchFetch, Fetch, SampleFetch
from ssl_lightning.modalities.image.annotations import DenseSet
from ssl_lightning.modalities.image.canvas import CanvasFetch, OnCanvas, canvas_views
from ssl_lightning.modalities.image.depth import Range
from ssl_lightning.modalities.image.described import check_channels, check_network, per_channel
from ssl_lightning.modalities.image.draw import View, Views
from ssl_lightning.modalities.image.fetch import eval_fetch
from ssl_lightning.modalities.image.images import ArrayImages, ImageSet
from ssl_lightning.modalities.image.views import DeviceViews, EvalView, WorkerCrops, WorkerViews

__all__ = ["ImageDataModule", "Loaded", "Split"]

RESIDENT_BYTES = 2 * 1024**3
NAIVE_SIZE = 32  # raw pixels are of images of this side at most


class ImageDataModule(DataModule):
    """Base of all sources of images: a subclass overrides `load` and passes `**loading` on to this class.

    Args:
        views: how training views are drawn; None when nothing is trained (stages that only evaluate).
        batch_size: images per device and step.
        image_size: side of the evaluation view.
        eval_resize: its shorter side before the middle is cropped (256 for 224 in published protocols); None: the same.
        mean, std: per channel, for images in [0, 1]. ImageNet's mean their average where there are not three channels.
        num_workers: processes that decode; None = none for decoded images, else one per core, at most 8.
        engine: "device" draws views in one batched pass after transfer; "worker" per image before batching.
        label_fraction, labels_per_class: how many training labels `labelled_indices` gives out; None = all. Training
            batches bear these labels and no others.
        bank_size: training images in the kNN bank during training; None = all.
        query_size: evaluation images scored during training; None = all.
        seed: of the shuffle, the views and all subsets.
        resident: keep decoded images on the GPU; "auto" = when they are smaller than 2 GB.
        worker_timeout: seconds after which processes that do not answer end the run.
        channels: of the images; those that are downloaded or drawn have 3.
    """

    modality, noun, naive_name = "image", "image", "raw_pixels"
    value_range: Range | None = None  # the values that became 0 and 255; None: the images were bytes already

    def __init__(
        self,
        views: Views | None = None,
        batch_size: int = 256,
        image_size: int = 32,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        num_workers: int | None = None,
        engine: Literal["device", "worker"] = "device",
        label_fraction: float | None = None,
        labels_per_class: int | None = None,
        bank_size: int | None = 5000,
        query_size: int | None = None,
        seed: int = 0,
        resident: bool | Literal["auto"] = "auto",
        worker_timeout: float = WORKER_TIMEOUT,
        eval_resize: int | None = None,
        channels: int = 3,
    ):
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            label_fraction=label_fraction,
            labels_per_class=labels_per_class,
            bank_size=bank_size,
            query_size=query_size,
            seed=seed,
            worker_timeout=worker_timeout,
        )
        if engine not in ("device", "worker"):
            raise UserError(f"data.engine={engine} is unknown; use device or worker")
        self.image_size, self.channels, self.engine, self.resident = image_size, channels, engine, resident
        self.mean, self.std = per_channel("mean", mean, channels), per_channel("std", std, channels)
        self.eval_resize, self.eval_view = eval_resize, EvalView(image_size, self.mean, self.std, eval_resize)
        self.use_views(views)

    def use_views(self, views: Views | None) -> None:
        self.views = views
        self._device_views = None if views is None else DeviceViews(views, self.mean, self.std, self.seed)

    def check_sets(self, sets: Sequence[ImageSet]) -> None:
        check_channels(sets, self.channels)

    def place(self, images: ImageSet, device: torch.device) -> ImageSet:
        """Decoded images on the GPU, when there is one and they fit: then a batch costs no transfer."""
        if self.engine == "worker" or not isinstance(images, ArrayImages):
            return images
        fits = images.images.numel() < RESIDENT_BYTES
        if device.type != "cuda" or self.resident is False or (self.resident == "auto" and not fits):
            return images
        return images.to(device)

    # ---- fetching and views

    def train_fetch(self, images: ImageSet) -> Fetch:
        assert self.views is not None
        if isinstance(images, DenseSet):
            return CanvasFetch(
                images, OnCanvas(self.image_size, self.mean, self.views.list()[0], self.seed), training=True
            )
        if self.engine == "worker":
            return SampleFetch(images, WorkerViews(self.views, self.mean, self.std, self.seed))
        if isinstance(images, ArrayImages):
            return BatchFetch(images)
        return SampleFetch(images, WorkerCrops(self.views, self.seed))

    def eval_fetch(self, images: ImageSet) -> Fetch:
        if isinstance(images, DenseSet):
            return CanvasFetch(images, OnCanvas(self.image_size, self.mean), training=False)
        return eval_fetch(images, self.eval_view)

    def training_views(self, raw: RawBatch) -> Drawn:
        assert self.views is not None
        assert self._device_views is not None
        finished = self.engine == "worker"
        views = raw.items if finished else self._device_views(raw.items, raw.indices, raw.epoch)
        return list(views), self.views.roles()

    def evaluation_views(self, raw: RawBatch) -> Drawn:
        return [self.eval_view.normalize(raw.items)], ()

    def padding_views(self, device: torch.device) -> list[Tensor]:
        return [torch.zeros(1, self.channels, self.image_size, self.image_size, device=device)]

    def weak_views(self, scale: tuple[float, float]) -> Views:
        """One random crop, flipped half of the time, no change of colour."""
        return Views(View(self.image_size, scale=scale, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0))

    def whole_views(self) -> Views:
        """The whole of a square image, neither flipped nor changed."""
        square = (1.0, 1.0)
        return Views(View(self.image_size, 1, square, square, flip_p=0.0, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0))

    def dense_views(self, zoom: Sequence[float], flip_p: float) -> Views:
        """Scale jitter and flip of images with boxes or masks, on a canvas of `image_size`."""
        return canvas_views(self.image_size, zoom, flip_p)

    def beyond_view(self, rows: Mapping[Split, Tensor]) -> tuple[int, str]:
        """Images that are not square, of which the middle is taken."""
        sides = torch.cat([self._split(split).sides(some) for split, some in rows.items()])
        return int((sides[:, 0] != sides[:, 1]).sum()), "give square ones, filled up at the sides"

    # ---- what the images are compared with, told of and shown as

    def naive_features(self, split: Split, indices: Tensor | None = None) -> Tensor:
        return self.raw_pixels(split, indices)

    def raw_pixels(self, split: Split, indices: Tensor | None = None) -> Tensor:
        """(N, D) pixels in [0, 1] at 32 x 32 at most, in the order of `indices`, all rows on every rank."""
        view = self.eval_view.smaller(min(self.image_size, NAIVE_SIZE))
        loader = self.each(split, indices, eval_fetch(self._split(split), view))
        return torch.cat([batch.items.flatten(1).float() / 255 for batch in loader])

    def naive_network(self) -> nn.Module:
        return Pixels(self.image_size, self.channels)

    def card(self) -> dict[str, Any]:
        """Size and normalisation; channels and range where they are not those of ordinary pictures."""
        card: dict[str, Any] = {"image_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}
        if self.eval_resize is not None:
            card["eval_resize"] = self.eval_resize
        if self.channels != 3:
            card["channels"] = self.channels
        if self.value_range is not None:
            card["value_range"] = list(self.value_range)
        return card

    def fed_as(self, card: dict[str, Any]) -> None:
        """By the range of values of its training; one that the data state themselves stays."""
        known = card.get("value_range")
        if known is not None and self.value_range is None:
            self.value_range = float(known[0]), float(known[1])

    def check_network(self, backbone: nn.Module) -> None:
        """Refuse a network that does not take images of as many channels as the data has."""
        check_network(backbone, self.channels, self.image_size)

    def show(self, item: Tensor) -> Tensor:
        """A normalised or uint8 view (C, h, w) as it looks: one channel in grey, of more than three the first three."""
        x = item.detach().cpu().float()
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        x = x / 255 if item.dtype == torch.uint8 else x * std + mean
        x = x.expand(3, -1, -1) if len(x) == 1 else torch.cat([x, torch.zeros_like(x[:1])])[:3]
        return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)


class Pixels(nn.Module):
    """The raw pixels as features, at 32 x 32 at most: (B, C, H, W) -> (B, out_dim)."""

    def __init__(self, image_size: int, channels: int = 3) -> None:
        super().__init__()
        self.size = min(image_size, NAIVE_SIZE)
        self.out_dim = channels * self.size**2

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        return x.flatten(1)
