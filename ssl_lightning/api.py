"""The Python entry: what the command line does, for the user's own code. Nothing below imports this."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from ssl_lightning.runs.checkpoint import Pretrained, restored

__all__ = ["load_backbone"]


def load_backbone(ref: str | Path | Pretrained, trusted: Iterable[str] = ()) -> nn.Module:
    """The backbone of a run, `load_backbone("runs/moco-cifar10")`: a batch of items -> (B, .out_dim), in eval mode.

    Args:
        ref: what says how its backbone is built: a run folder, a checkpoint in one, an exported safetensors file,
            `timm:<name>`, or what `resolve_ckpt` made of one of these.
        trusted: your own packages, where the backbone's class lives in one.

    Returns:
        A plain nn.Module. Of images it takes (B, C, H, W), scaled as its card says.

    Raises:
        UserError: there is nothing to read, it is damaged, or it is a bare state_dict: build that backbone yourself
            and use `load_weights`.
    """
    return restored(ref, trusted)
