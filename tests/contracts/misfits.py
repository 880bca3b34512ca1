"""Networks of a user's own that do not take the views of `series.SeriesData`, each in another way."""

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Padded
from ssl_lightning.data.items import HeldItems
from tests.contracts.series import Net, SeriesData, mean


class Channels(Net):
    """Reads two numbers at each time; the waves have one."""

    def __init__(self, width: int = 8) -> None:
        super().__init__(width)
        self.conv = nn.Conv1d(2, width, 5, padding=2)


class Length(nn.Module):
    """Reads waves of 17 times."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.linear, self.out_dim = nn.Linear(17, width), width

    def forward(self, view: Padded) -> Tensor:
        return self.linear(view.x.flatten(1))  # type: ignore[no-any-return]


class Plain(Length):
    """Reads tensors."""

    def forward(self, view: Padded) -> Tensor:
        return self.linear(view)  # type: ignore[no-any-return]


class Bytes(Net):
    """Its weights are of another type."""

    def forward(self, view: Padded) -> Tensor:
        return mean(self.conv(view.x.transpose(1, 2).long()).transpose(1, 2), view)


class Unpacks(Net):
    """Expects another number of axes."""

    def forward(self, view: Padded) -> Tensor:
        _, _, _, _ = view.x.shape
        return super().forward(view)


class Broken(Net):
    """A mistake that is of no shape."""

    def forward(self, view: Padded) -> Tensor:
        raise RuntimeError("no such wave")


class Misspelt(Net):
    """Another."""

    def forward(self, view: Padded) -> Tensor:
        return torch.relu(self.convolution(view.x))  # type: ignore[operator, arg-type]


class TwoNumbers(SeriesData):
    """Waves of two numbers at each time, for a network that has learned on one."""

    def part(self, split: int, size: int) -> HeldItems:
        one = super().part(split, size)
        return HeldItems(Padded(one.items.x.repeat(1, 1, 2), one.items.lengths), one.labels, ["slow", "fast"])
