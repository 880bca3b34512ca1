"""A package that a user trusts, and what it has besides classes of the right base: nothing of this is for a config."""

import os
from typing import Any
from urllib.request import urlretrieve  # noqa: F401

import torch
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: F401
from torch import nn


def touch(path: str) -> None:
    open(path, "w").close()


def touch_run(path: str) -> dict[str, Any]:
    """No stage: it takes nothing that a stage is given."""
    touch(path)
    return {}


class Tool:
    """A class of no base that a config builds."""

    def __init__(self, path: str) -> None:
        touch(path)


class _Hidden(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        touch(path)


class Net(nn.Module):
    """The honest one, whose methods are not for a config either."""

    def __init__(self, width: int = 4, head: nn.Module | None = None) -> None:
        super().__init__()
        self.out_dim = width
        self.net, self.head = nn.Linear(3, width), head

    @staticmethod
    def touch(path: str) -> nn.Module:
        touch(path)
        return Net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def net(width: int = 4) -> Net:
    """A builder of the user's own: it says what it returns."""
    return Net(width)


system = os.system
