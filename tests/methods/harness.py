"""What the tests of every method share: the list of methods (read from conf/), and tiny float64 instances of them."""

from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.cli.run import compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.core.batch import Batch
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.methods.deepcluster_v2 import DeepClusterV2
from ssl_lightning.models.vit import ViT

CONF = Path(__file__).parents[2] / "conf"
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


# What keeps a method small enough for the tests, where its own yaml would not.
SMALL: dict[str, dict[str, Any]] = {
    "supervised": {"classes": 3},
    "wmse": {"loss": {"size": 8, "eps": 0.1}},  # well conditioned: 20 steps must not blow up the last digits
    "swav": {"prototypes": 6, "epsilon": 0.05, "queue_epoch": 0, "frozen_epochs": 0},
    "deepcluster_v2": {"memory_size": 8, "prototypes": 3},
    "dino": {"frozen_epochs": 0},
    "ibot": {"frozen_epochs": 0, "mask_probability": 0.9},
    "dinov2": {  # soft answers: scores of no unit vectors, sharpened 25 times, multiply rounding errors at each step
        "frozen_epochs": 0,
        "mask_probability": 0.9,
        "teacher_temperature": 0.5,
        "warmup_teacher_temperature": 0.5,
    },
    "data2vec": {"target_blocks": 1},
    "colorization": {"cells": 2, "bins": {"size": 40.0}},
    "cpc": {"tile_size": 4, "stride": 2, "offsets": [1, 2], "context": {"hidden_dim": 4, "depth": 2}},
    # As for DINOv2: at 0.025 rounding errors of 1e-14 (up to step 5) grow to 2e-9 by step 20, at 0.1 to 4e-11.
    "msn": {"prototypes": 6, "mask_ratio": 0.5, "loss": {"target_temperature": 0.1}},
    "jigsaw": {"tile_size": 3},
    "relative_position": {"tile_size": 3},
    "simmim": {"image_size": 4, "mask_size": 2},
    "ijepa": {"targets": 2, "predictor": {"dim": 8, "depth": 1, "heads": 2}},
    "mae": {"decoder": {"dim": 8, "depth": 1, "heads": 2}},
}


class SmoothBackbone(nn.Sequential):
    """No batch statistics and no kinks: what DDP equality can be proven with to the last digits."""

    def __init__(self, image_size: int = 4, out_dim: int = 6) -> None:
        super().__init__(nn.Conv2d(3, 8, 2, stride=2), nn.Tanh(), nn.Conv2d(8, out_dim, 1))
        self.out_dim = out_dim

    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward(x)  # (B, D, h/2, w/2)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x).mean((2, 3))


class SmoothMLP(nn.Sequential):
    """A head of the same kind."""

    def project(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def __init__(self, in_dim: int, out_dim: int = 5) -> None:
        super().__init__(nn.Linear(in_dim, 7), nn.Tanh(), nn.Linear(7, out_dim))
        self.out_dim = out_dim


@cache
def config_of(name: str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    return compose([f"method={name}", *overrides]).values


def needs_vit(name: str) -> bool:
    return str(config_of(name)["backbone"]["_target_"]).endswith(".ViT")


def tiny_backbone(name: str) -> nn.Module:
    """A network without batch statistics of the kind that the method asks for; the transformer has 16 patches."""
    if not needs_vit(name):
        return SmoothBackbone()
    chosen = {key: config_of(name)["backbone"][key] for key in ("readout", "positions")}
    return ViT(image_size=4, patch_size=1, dim=8, depth=2, heads=2, **chosen)


def tiny_method(name: str, overrides: tuple[str, ...] = (), **parts: Any) -> SSLMethod:
    """The method as its yaml builds it, but with smooth heads, a queue of 16, and in float64."""
    node = dict(config_of(name, overrides)["method"])
    for key, value in SMALL.get(name, {}).items():
        node[key] = {**node[key], **value} if isinstance(value, dict) else value
    if "queue_size" in node:
        node["queue_size"] = 16
    for head in ("projector", "dense_projector", "patch_projector", "predictor"):
        if node.get(head) is not None and name != "ijepa":
            node[head] = partial(SmoothMLP, out_dim=8) if name == "relative_position" else SmoothMLP  # it has 8 sides
    torch.manual_seed(0)
    return instantiate(node, **{"backbone": tiny_backbone(name), **parts}).double()


def random_batch(size: int = 8, views: int = 2, image_size: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, 3, image_size, image_size)
    images = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(views)]
    return Batch(images, torch.arange(size) % 3, torch.arange(size))


def batch_for(name: str, size: int = 8, seed: int = 0) -> Batch:
    """A random batch as large as the method's tiles ask for."""
    return random_batch(size, image_size=12 if "tile_size" in SMALL.get(name, {}) else 4, seed=seed)


def rows(batch: Batch, start: int, stop: int) -> Batch:
    views = [view[start:stop] for view in batch.views]
    return Batch(views, batch.labels[start:stop], batch.indices[start:stop], batch.roles)


def step(method: SSLMethod, batch: Batch, batch_idx: int = 0) -> StepOutput:
    """A training step with what the trainer calls before it."""
    if batch_idx == 0 and isinstance(method, DeepClusterV2):
        method.look(batch)
    method.on_train_batch_start(batch, batch_idx)
    return method.training_step(batch, batch_idx)  # type: ignore[operator, no-any-return]


def at(method: SSLMethod, epoch: int, global_step: int | None = None) -> SSLMethod:
    """The method, told that training is in this epoch (from 0), at this step (by default 3 an epoch)."""
    step = 3 * epoch if global_step is None else global_step
    method._trainer = SimpleNamespace(current_epoch=epoch, global_step=step)  # type: ignore[assignment]
    return method


def gradients(method: SSLMethod) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
