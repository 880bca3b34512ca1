"""The Python entry: what the command line does, for the user's own code. Nothing below imports this."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from ssl_lightning.modalities.feeding import attach
from ssl_lightning.runs.checkpoint import Pretrained, resolve_ckpt, restored

__all__ = ["load_backbone"]


def load_backbone(ref: str | Path | Pretrained, trusted: Iterable[str] = ()) -> nn.Module:
    """The backbone of a run, `load_backbone("runs/moco-cifar10")`: a batch of items -> (B, .out_dim), in eval mode.

    Args:
        ref: what says how its backbone is built: a run folder, a checkpoint in one, an exported safetensors file,
            `timm:<name>`, or what `resolve_ckpt` made of one of these.
        trusted: your own packages, where the backbone's class lives in one.

    Returns:
        A plain nn.Module with `.out_dim` and

        - `.transform(item)`: a path, PIL image, array or tensor of any size, mode and depth -> its input (C, H, W), as
          the evaluation view of its training gives it; of audio a path, or a wave and its rate;
        - `.embed(items, batch_size=64, device=None)`: files, a folder, images or arrays -> float32 (N, .out_dim);
        - `.card`: a dict that says how it is built and fed (`image_size`, `mean`, `std`, `method`, `data` ...).

    Raises:
        UserError: there is nothing to read, it is damaged, or it is a bare state_dict: build that backbone yourself
            and use `load_weights`.
    """
    checkpoint = ref if isinstance(ref, Pretrained) else resolve_ckpt(ref)
    return attach(restored(checkpoint, trusted), checkpoint.card or {})
