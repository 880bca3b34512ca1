"""What `stage=doctor` says of a method with these data: batches, queues, prototypes and sizes that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from ssl_lightning.core.finding import Finding
from ssl_lightning.core.protocols import has_tokens
from ssl_lightning.data.base import DataModule
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.methods.swav import SwAV
from ssl_lightning.models.resnet import ResNet
from ssl_lightning.parts.center import SinkhornCenter
from ssl_lightning.parts.queue import Queue

SMALL_NORM, SMALL_CONTRAST = 16, 64  # items of a batch
FEW_STEPS, FEW_TOKENS = 1000, 16


@dataclass(frozen=True)
class Length:
    """How long a training is: training items, batch of a device and of all, optimizer steps an epoch, epochs, steps."""

    items: int
    batch: int
    together: int
    steps: int
    epochs: int | None
    total: int | None


def look(method: SSLMethod, data: DataModule, plan: Length) -> list[Finding]:
    """All that does not fit, or one line that all does."""
    found = [*_batches(method, data, plan), *_parts(method, data, plan), *_sizes(method, data)]
    learns = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return [Finding("method", "ok", f"{learns / 1e6:.1f} million parameters learn"), *found]


def _batches(method: SSLMethod, data: DataModule, plan: Length) -> Iterator[Finding]:
    noun, batch = f"{data.noun}s", plan.batch
    if plan.steps == 0:
        size = max(1, plan.items // 4)
        what = f"a batch of {plan.together} does not fit {plan.items} training {noun}"
        yield Finding("method", "bad", what, f"data.batch_size={2 ** (size.bit_length() - 1)}")
        return
    if batch < SMALL_NORM and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in method.modules()):
        fix = "a larger batch; accumulating gradients does not help BatchNorm"
        yield Finding("method", "watch", f"BatchNorm averages over {batch} {noun}: noisy", fix)
    contrasts = type(getattr(method, "loss", None)).__name__ in (
        "NTXent",
        "DCL",
        "SupConLoss",
        "HardNegative",
        "InfoNCE",
    )
    if contrasts and plan.together < SMALL_CONTRAST and not _of_kind(method, Queue):
        fix = "128 or more, or a method that needs no negatives: method=byol, method=moco (a queue)"
        yield Finding("method", "watch", f"each {data.noun} is compared with only {plan.together - 1} others", fix)
    if plan.steps < 5:
        fix = f"data.batch_size={max(2, 2 ** ((plan.items // 8).bit_length() - 1))} gives more steps an epoch"
        yield Finding("method", "watch", f"{plan.steps} steps an epoch: schedules that count epochs move in jumps", fix)
    if plan.total is not None and plan.total < FEW_STEPS:
        epochs = -(-3 * FEW_STEPS // plan.steps)
        fix = f"trainer.max_epochs={epochs} makes {epochs * plan.steps:,}; small sets need more epochs"
        yield Finding("method", "watch", f"{plan.total} optimizer steps in all: too few to learn much", fix)


def _of_kind(method: SSLMethod, kind: type[nn.Module]) -> list[Any]:
    return [module for module in method.modules() if isinstance(module, kind)]


def prototypes(method: SSLMethod) -> int:
    """K of a method that assigns items to prototypes, the largest; 0 where there are none."""
    found = [0]
    for module in method.modules():
        own = getattr(module, "prototypes", None)
        weights = own.weight if isinstance(own, nn.Linear) else own
        if isinstance(weights, Tensor) and weights.ndim == 2:
            found.append(len(weights))
    return max(found)


def _parts(method: SSLMethod, data: DataModule, plan: Length) -> Iterator[Finding]:
    noun, count = f"{data.noun}s", prototypes(method)
    if count > plan.items:
        fix = f"{_key_of_prototypes(method)}={max(2, 2 ** ((plan.items // 4).bit_length() - 1))}"
        yield Finding("method", "watch", f"{count:,} prototypes for {plan.items:,} {noun}: most stay empty", fix)
    shares = isinstance(method, SwAV) or bool(_of_kind(method, SinkhornCenter))
    if shares and plan.together < min(count, 512) // 4 and not getattr(method, "queue_size", 0):
        fix = "a larger batch, or method.queue_size where the method has one"
        yield Finding(
            "method", "watch", f"Sinkhorn divides {plan.together} {noun} among {count:,} prototypes: too few", fix
        )
    for queue in _of_kind(method, Queue):
        size = len(queue.vectors)
        if size > plan.items:
            largest = 2 ** (max(1, plan.items // 2).bit_length() - 1)
            fit = largest // plan.together * plan.together or plan.together
            what = f"the queue of {size:,} is longer than an epoch of {plan.items:,}: an item is its own negative"
            yield Finding("method", "watch", what, f"method.queue_size={fit}")
            break


def _key_of_prototypes(method: SSLMethod) -> str:
    return "method.prototypes" if hasattr(method, "prototypes") else "method.projector.out_dim"


def _sizes(method: SSLMethod, data: Any) -> Iterator[Finding]:
    net, size = method.backbone, getattr(data, "image_size", None)
    if isinstance(size, int):
        views = data.views.sizes() if data.views is not None else ()
        if views and max(views) != size:
            fix = "train and evaluate at one size unless you mean it: views.*.size=${data.image_size}"
            yield Finding("method", "watch", f"trained on views of {max(views)} px and evaluated at {size} px", fix)
        if isinstance(net, ResNet) and size <= 64 and net.conv1.stride[0] == 2:
            side = max(1, size // 32)
            what = f"the stem of large images leaves {side} x {side} places of {size} px"
            yield Finding("method", "watch", what, "backbone.stem=cifar")
    if has_tokens(net):
        grid = tuple(net.grid)  # type: ignore[union-attr, arg-type]
        if prod(grid) < FEW_TOKENS:
            what = f"{prod(grid)} tokens ({' x '.join(map(str, grid))}) are few to attend to or to mask"
            yield Finding("method", "watch", what, "a smaller backbone.patch_size, or larger images")
