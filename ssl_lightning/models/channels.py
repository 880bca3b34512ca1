"""How many channels a network takes."""

from torch import nn


def in_channels(network: nn.Module) -> int:
    """Channels of the items that a network takes: those of its first convolution; 3 where it has none."""
    found = [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    found.sort(key=lambda module: not isinstance(module, nn.Conv2d))  # images come first: some have a Conv1d inside
    return found[0].in_channels if found else 3
