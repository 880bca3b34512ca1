"""What data says of itself: numbers per channel, the card of a network trained on it, the line it opens with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.broken import counted, named
from ssl_lightning.data.items import ItemSet
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.modalities.image.images import ImageSet
from ssl_lightning.models.channels import in_channels

if TYPE_CHECKING:
    from ssl_lightning.data.base import DataModule

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MOST_CHANNELS = 1024


def per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """`data.mean` or `data.std`, one number for each channel; ImageNet's average where there are not three."""
    if not 1 <= channels <= MOST_CHANNELS:
        raise UserError(f"data.channels={channels} is not a number of channels; give 1 or more, 3 for colours")
    found = tuple(float(value) for value in values)
    if channels != 3 and found == IMAGENET[name]:
        found = (round(sum(found) / 3, 4),) * channels
    if len(found) != channels:
        raise UserError(
            f"data.{name}={list(found)} has {len(found)} numbers for {channels} channels; give one for each"
        )
    if name == "std" and not all(value > 0 for value in found):
        raise UserError(f"data.std={list(found)} has a number that is not above 0; give positive numbers")
    return found


def check_channels(images: Sequence[ImageSet], channels: int) -> None:
    """Refuse `data.channels` where the images have another number of them."""
    odd = next((part.channels for part in images if part.channels != channels), None)
    if odd is not None:
        raise UserError(f"these images have {odd} channels, not {channels}; set data.channels={odd}")


def check_network(backbone: nn.Module, channels: int, image_size: int) -> None:
    """Refuse a network that does not take images of as many channels as the data has, or none at all."""
    if reads := getattr(backbone, "reads", ""):
        raise UserError(f"this network ({type(backbone).__name__}) reads {reads}, and these are images; choose another "
                        "backbone=, or other data")  # fmt: skip
    if in_channels(backbone) == channels:
        return
    blank = torch.zeros(1, channels, image_size, image_size)
    try:
        with evaluating(backbone), torch.no_grad():
            backbone(blank.to(next(backbone.parameters())))
    except RuntimeError as error:
        found = in_channels(backbone)
        raise UserError(
            f"this backbone takes images of {found} channels, and the data has {channels}; "
            f"set data.channels={found}, or take a backbone that was trained on such images"
        ) from error


def labels_per_image(data: DataModule) -> int:
    """0 without labels, 1 with classes, more where each image has several labels (`ImageSet.targets`)."""
    return len(data.probe_set.target_names) or int(data.has_labels)


def split_words(images: ItemSet) -> str:
    """`90 images in 4 classes`, of what is there."""
    count = counted(len(images), images.noun)
    if images.targets is not None:
        what = "number" if images.targets.is_floating_point() else "label"
        return f"{count} with {counted(len(images.target_names), what)} each"
    present = images.labels.unique()
    known = int((present >= 0).sum())
    if not known:
        return f"{count} without labels"
    bare = int((images.labels < 0).sum())
    return f"{count} in {counted(known, 'class')}" + (f" ({bare} of them without a label)" if bare else "")


def opening(train: ItemSet, test: ItemSet, probe: ItemSet | None = None) -> str:
    """How many items in how many classes each part has, and the classes that only one part has."""
    text = f"{split_words(train)} to train on, {split_words(test)} to evaluate on"
    if probe is not None and probe is not train:
        text += f", {split_words(probe)} for probes and kNN"
    learned, asked = (set((probe or train).labels.unique().tolist()), set(test.labels.unique().tolist()))
    if learned - {-1} and asked - {-1}:
        missing = [test.classes[i] for i in sorted(learned - asked - {-1}) if i < len(test.classes)]
        text += f" (no {test.noun} of class {named(missing)} among these)" if missing else ""
    return text
