"""What probe and kNN share: are there labels at all, and each image counted once."""

import logging
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ssl_lightning.core.distributed import is_main

log = logging.getLogger("ssl_lightning")


def has_labels(trainer: Trainer, who: str, train_set: bool = False) -> bool:
    """Whether probe and test images (and some that are pretrained on) are labelled; when not, says `who` is off."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    several = len(data.probe_set.target_names) if data is not None and hasattr(data, "probe_set") else 0
    labelled = not several and data is not None and data.has_labels
    labelled = labelled and (not train_set or some_labelled(data.train_set))
    if several and is_main():
        log.info("%s is off: it takes one label per %s, and the data has %d", who, noun_of(trainer), several)
    elif not labelled and is_main():
        log.info("%s is off: the %s has no labels", who, "training data" if train_set else "data")
    return labelled


def noun_of(trainer: Trainer) -> str:
    """What an item of this run's data is called; data that does not say is of images."""
    return str(getattr(getattr(trainer, "datamodule", None), "noun", "image"))


def some_labelled(images: Any) -> bool:
    """Does any of these images have a label?"""
    labels = getattr(images, "labels", None)
    return bool(images.labelled) if labels is None else bool((labels >= 0).any())


def unique_rows(indices: Tensor) -> Tensor:
    """One position for each distinct value of indices (N,): a sampler may give an image to two ranks to fill up."""
    distinct, inverse = torch.unique(indices, return_inverse=True)
    positions = torch.arange(len(indices), device=indices.device)
    return positions.new_zeros(len(distinct)).scatter_(0, inverse, positions)
