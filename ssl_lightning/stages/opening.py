"""What a stage works on, said before it begins: network, data, device, length. Nothing is read for it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from ssl_lightning.core import distributed, progress
from ssl_lightning.core.errors import plain
from ssl_lightning.core.task import BOXES, MASKS
from ssl_lightning.core.words import counted
from ssl_lightning.data.base import DataModule

PRECISIONS = {"32-true": "float32", "64-true": "float64", "bf16-true": "bfloat16", "16-true": "float16"}


class Opening(Callback):
    """Says the same of a training when it begins: only then its data has been read."""

    def __init__(self, method_name: str, data_name: str) -> None:
        self.method_name, self.data_name = method_name, data_name

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        say("method", lambda: f"{self.method_name}, {networks(pl_module)}")
        say("data", lambda: f"{self.data_name}, {items_of(data)}")
        say("device", lambda: device_of(trainer.strategy.root_device, trainer.world_size, str(trainer.precision)))
        say("length", lambda: length_of(trainer, data))


def tell_backbone(backbone: nn.Module, method: str) -> None:
    """Say what is evaluated; `method`: what trained it."""
    if distributed.is_main():
        say("network", lambda: f"{networks(backbone)}, trained by {method}")


def tell_items(data: DataModule, device: torch.device) -> None:
    """Say on which items, which have been read, and where."""
    if distributed.is_main():
        say("data", lambda: evaluated_items_of(data))
        say("device", lambda: device_of(device, distributed.world_size()))


def say(what: str, words: Callable[[], str]) -> None:
    """One aligned line. A part of the user's own that does not tell what is asked here loses its line, not its run."""
    try:
        text = words()
    except Exception as error:
        text = f"not known ({type(error).__name__})"
    progress.say(f"{what + ':':<9}{plain(text)}")


def networks(module: nn.Module) -> str:
    """`ConvNetSmall with 0.87 M parameters`; of a method what is trained, and its backbone's share."""
    backbone = getattr(module, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return f"{type(module).__name__} with {millions(module)} parameters"
    return f"{type(backbone).__name__} with {millions(backbone)} parameters ({millions(module, True)} trained in all)"


def millions(module: nn.Module, trained: bool = False) -> str:
    """`0.87 M`."""
    return f"{sum(p.numel() for p in module.parameters() if p.requires_grad or not trained) / 1e6:.2f} M"


def items_of(data: DataModule) -> str:
    """`20,000 training and 4,000 test images in 10 classes`."""
    train, test, probe = len(data.train_set), len(data.test_set), data.probe_set
    count = f"{train:,} training and {test:,} test {data.noun}s"
    if probe is not data.train_set:
        count = f"{train:,} training, {len(probe):,} labelled training and {test:,} test {data.noun}s"
    return f"{count}{labels_of(data)}"


def evaluated_items_of(data: DataModule) -> str:
    """The same of data that are evaluated on; what is pretrained on is not looked at."""
    count = f"{len(data.probe_set):,} training and {len(data.test_set):,} test {data.noun}s"
    return f"{count}{labels_of(data)}"


def labels_of(data: DataModule) -> str:
    """` in 10 classes`."""
    names = data.label_names
    if data.label_kind in (BOXES, MASKS):
        return f", {data.label_kind} of {counted(len(names), 'class')}"
    if data.label_kind != "classes" and names:
        return f", {counted(len(names), 'label' if data.label_kind == 'several' else 'number')} each"
    return f" in {counted(len(names), 'class')}" if data.has_labels and names else ", not all labelled"


def device_of(device: torch.device, world: int, precision: str | None = None) -> str:
    """`4 x NVIDIA H100, bf16-mixed`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    several = f"{world} x {name}" if world > 1 else name
    return f"{several}, {PRECISIONS.get(precision, precision)}" if precision else several


def length_of(trainer: Trainer, data: Any) -> str:
    """`5 epochs of 156 steps, 128 images a step`."""
    batch, world, gathered = data.batch_size, trainer.world_size, trainer.accumulate_grad_batches
    steps: Any = trainer.num_training_batches
    each = f" of {counted(max(1, round(steps / gathered)), 'step')}" if steps != float("inf") else ""
    whole = batch * world * gathered
    parts = [f"{n}" for n in (batch, world, gathered)[: 3 if gathered > 1 else 2 if world > 1 else 1]]
    shares = f" ({' x '.join(parts)})" if len(parts) > 1 else ""
    last = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
    epochs = counted(last, "epoch") if last else f"{trainer.max_steps:,} steps in epochs"
    return f"{epochs}{each}, {counted(whole, getattr(data, 'noun', 'item'))} a step{shares}"
