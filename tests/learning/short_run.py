"""A short run on `shapes`, in this process: what the learning and the collapse tests share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from ssl_lightning.callbacks.reseed import Reseed
from ssl_lightning.cli.run import compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.modalities.image.data import DataModule
from tests.callbacks.toy import trainer_of
from tests.methods.harness import needs_vit

SMALL = ["data.bank_size=64", "data.query_size=64"]


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The config of these overrides, `method=` among them, with a network that a core trains in a minute."""
    name = next(word.removeprefix("method=") for word in overrides if word.startswith("method="))
    small = ["backbone.dim=64", "backbone.heads=2", "backbone.depth=4"] if needs_vit(name) else ["backbone.width=16"]
    return compose([*SMALL, *small, *overrides]).values


def short_run(
    folder: Path,
    overrides: Sequence[str],
    steps: int,
    callbacks: Sequence[Callback] = (),
    change: Callable[[Any], None] = lambda method: None,
) -> tuple[SSLMethod, DataModule]:
    """Trains what the overrides compose for so many steps, seeded; `change` may alter the method before."""
    torch.set_num_threads(1)
    config = composed(overrides)
    torch.manual_seed(0)
    backbone, recipe = instantiate(config["backbone"]), instantiate(config["optimizer"])
    method = instantiate(config["method"], backbone=backbone, optimizer=recipe)
    method.to(memory_format=torch.channels_last)
    change(method)
    data = instantiate(config["data"])
    trainer = trainer_of(folder, [Reseed(0), *callbacks], max_steps=steps, max_epochs=-1, limit_val_batches=0)
    trainer.fit(method, data)
    return method, data
