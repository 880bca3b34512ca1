"""Which buffers DistributedDataParallel sends at each step: those that may differ between ranks, and no others.

It broadcasts all of them by default, MoCo's queue at its published size 33 MB a step. Queues, memories, centres and
covariances are computed from the gathered batch: they are equal on all ranks as they are.
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from ssl_lightning.core import distributed

OURS = __name__.partition(".")[0]


def alike(module: nn.Module) -> list[str]:
    """Names of the buffers that need not be sent.

    Sent are running statistics, which each rank takes from its own share of the batch, and what a class from elsewhere
    keeps in its checkpoints: we do not know how it comes about. What it does not keep there is a constant.
    """
    names = []
    for prefix, part in module.named_modules():
        if isinstance(part, _NormBase):
            continue
        ours = type(part).__module__.partition(".")[0] == OURS
        for name, _ in part.named_buffers(recurse=False):
            if ours or name in part._non_persistent_buffers_set:
                names.append(f"{prefix}.{name}" if prefix else name)
    return names


def spare(module: nn.Module) -> None:
    """Tell DistributedDataParallel, before it takes the module, to leave the buffers that are alike."""
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, alike(module))


@torch.no_grad()
def send_once(module: nn.Module) -> None:
    """Rank 0's values of these buffers for every rank: ranks with other seeds begin alike, too."""
    for name in alike(module):
        distributed.broadcast(module.get_buffer(name))


@torch.no_grad()
def share_statistics(module: nn.Module) -> None:
    """Rank 0's values of the other buffers for every rank: then all hold the network that is saved."""
    spared = set(alike(module))
    for name, buffer in module.named_buffers():
        if name not in spared:
            distributed.broadcast(buffer)
