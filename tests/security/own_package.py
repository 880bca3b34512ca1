"""A package of a user's own: a method, a network, a loss, settings, a callback and a stage."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback
from torch import Tensor, nn

from ssl_lightning import Batch, SSLMethod, StepOutput
from ssl_lightning.runs.folder import RunFolder


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net, self.out_dim = nn.Linear(3, width), width

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class Loss(nn.Module):
    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.mean((a - b) ** self.power)


@dataclass(frozen=True)
class Settings:
    """No class that the package knows: the annotation of `Method` is what allows it."""

    a: int


class Method(SSLMethod):
    def __init__(self, backbone: nn.Module, loss: Loss, settings: Settings | None = None, **optim: Any) -> None:
        super().__init__(backbone, **optim)
        self.loss, self.settings = loss, settings

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        features = self.backbone(torch.cat(list(batch.global_views)))
        return self.output(self.loss(*features.chunk(2)), features, features)


class Watch(Callback):
    """It may be given any path: the user wrote it."""

    def __init__(self, path: str) -> None:
        self.path = path


def stage(run: RunFolder, seed: int) -> dict[str, Any]:
    return {"seed": seed}
