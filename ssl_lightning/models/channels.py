"""How many channels a network takes."""

from torch import nn


def in_channels(network: nn.Module) -> int:
    """Channels of the images that a network takes: those of its first convolution; 3 where it has none."""
    return next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)), 3)
