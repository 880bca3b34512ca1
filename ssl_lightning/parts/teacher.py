"""A teacher as a part of a method: frozen copies of the student's networks, and the callback that moves them."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.parts.ema_teacher import EMATeacher, frozen_copy


class Teacher(nn.Module):
    """What the student's networks, one after another, make of an image, by copies that follow them slowly.

    A method that holds one needs no more: `SSLMethod` hands its callback to the trainer.

    Args:
        ema: how the copies follow.
        *students: networks of the student in the order of the forward pass, usually backbone and projector.
    """

    def __init__(self, ema: EMATeacher, *students: nn.Module) -> None:
        super().__init__()
        self.ema = ema
        self.students = students  # a tuple: these networks belong to the method and are not part of this module
        self.networks = nn.ModuleList(frozen_copy(student) for student in students)

    @property
    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(student, copy) for each network."""
        return list(zip(self.students, self.networks))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> what the last network makes of them, without gradient."""
        return self.states(x)[-1]

    @torch.no_grad()
    def states(self, x: Any) -> list[Any]:
        """The same after each network."""
        found = []
        for network in self.networks:
            x = network(x)
            found.append(x)
        return found
