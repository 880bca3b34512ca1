"""Which part of a network is fine-tuned: all of it, its last blocks, or none; and what then stays as it is."""

from torch import nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.optim.param_groups import block_numbers


def freeze_below(backbone: nn.Module, last: int) -> None:
    """Let only the last blocks of a backbone learn; 0: none. Blocks are as the layer decay counts them.

    Raises:
        UserError: it has fewer.
    """
    numbers = block_numbers(backbone)
    count = max(numbers.values(), default=-1) + 1
    if last > count:
        raise UserError(f"stage.train={last}: {type(backbone).__name__} has {count} blocks; give fewer, or all")
    for name, p in backbone.named_parameters():
        if numbers[name] < count - last:
            p.requires_grad_(False)


def still_modules(network: nn.Module, inherited: bool = False) -> list[nn.Module]:
    """The modules that learn nothing, a frozen block's dropout and statistics among them: none of them is to train."""
    own = list(network.parameters())
    still = not any(p.requires_grad for p in own) if own else inherited
    found = [network] if still else []
    for child in network.children():
        found += still_modules(child, still)
    return found


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The modules that keep statistics of their batches."""
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
