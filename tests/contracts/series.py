"""A whole modality in one small file of a user's own: waves of different lengths. Nothing in the package knows it."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Padded
from ssl_lightning.core.counter import uniform
from ssl_lightning.data import base, plan
from ssl_lightning.data.items import HeldItems


class CropAndNoise(plan.Views):
    def __init__(self, noise: float = 0.3) -> None:
        self.noise = noise

    def roles(self) -> tuple[str, ...]:
        return ("global", "global")


class SeriesData(base.DataModule):
    modality, noun = "series", "wave"

    def __init__(self, size: int = 64, **loading: Any) -> None:
        super().__init__(**loading)
        self.size = size

    def load(self) -> base.Loaded:
        return self.part(0, self.size), self.part(1, self.size // 2)

    def part(self, split: int, size: int) -> HeldItems:
        drawn, labels, time = uniform(split, 0, torch.arange(size), 9, 2), torch.arange(size) % 2, torch.arange(24)
        x = torch.sin(time * (0.4 + 0.8 * labels[:, None]) + 6.28 * drawn[:, 1:])[..., None]
        return HeldItems(Padded(x, (8 + 16 * drawn[:, 0]).long()), labels, ["slow", "fast"])

    def training_views(self, raw: Any) -> base.Drawn:
        return [self.view(raw.items, uniform(self.seed, raw.epoch, raw.indices, v, 25)) for v in (0, 1)], ()

    def view(self, items: Padded, drawn: Tensor) -> Padded:
        x = items.x + self.views.noise * (drawn[:, 1:, None] - 0.5)  # type: ignore[attr-defined]
        return Padded(x, (items.lengths * (0.6 + 0.4 * drawn[:, 0])).long())

    def naive_features(self, split: base.Split, indices: Tensor | None = None) -> Tensor:
        return torch.cat([mean(raw.items.x, raw.items) for raw in self.each(split, indices)])


def mean(x: Tensor, of: Padded) -> Tensor:
    return (x * of.valid[..., None]).sum(1) / of.lengths[:, None]


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv, self.out_dim = nn.Conv1d(1, width, 5, padding=2), width

    def forward(self, view: Padded) -> Tensor:
        x = view.x * view.valid[..., None]
        return mean(self.conv(x.transpose(1, 2)).relu().transpose(1, 2), view)
