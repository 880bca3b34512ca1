"""A network that does not take the views of data of the user's own: one line that names both.

Nothing is tried beforehand: what such a network is given is read from the exception that ended the run.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor, nn

from ssl_lightning.core.batch import Batch, Padded
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.one_line import text

# What torch, its layers and Python say of a tensor that has another shape or type than the code expects.
OF_SHAPES = re.compile(
    r"\bshapes?\b|\bsizes?\b|\bdim(ension)?s?\b|\bchannels?\b|must match|\b\dD\b|dtype|scalar type|input type"
    r"|values to unpack|indices for (a )?tensor",
    re.IGNORECASE,
)
OF_ITEMS = "Expected more than 1 value per channel"  # too few items for a BatchNorm
OF_STRUCTURES = re.compile(r"'Tensor' object has no attribute '(x|lengths|valid)'")


def of_views(error: BaseException, data: str) -> UserError | None:
    """What an exception says to the user where a backbone ended with it because of its views' shape or type; or None.

    `data`: the name of the data's class.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    kinds = {type(found) for frame, _ in frames for value in frame.f_locals.values() for found in _held(value)}
    own = [type(it := frame.f_locals.get("self")) in kinds and hasattr(it, "out_dim") for frame, _ in frames]
    at = own.index(True) if True in own else None
    if at is None:
        return None
    view = _given([frame for frame, _ in frames[: at + 1]])
    if view is None or not _is_misfit(error, view):
        return None
    backbone = frames[at][0].f_locals["self"]
    first = text(ValueError(str(error).strip().partition("\n")[0]))
    return UserError(
        f"the network {type(backbone).__name__} does not take the views of {data} ({_described(view)}): "
        f"{first}{_where(frames)}; choose another backbone=, or change the views that {data} gives"
    )


def _held(value: Any) -> list[nn.Module]:
    """The backbone of a method, of a module that is fine-tuned, of what a stage evaluates; [] of all else."""
    parts = getattr(value, "__dict__", {}) if not isinstance(value, type) else {}
    found = (parts.get("_modules") or parts).get("backbone")
    return [found] if isinstance(found, nn.Module) else []


def _given(frames: list[FrameType]) -> Any:
    """The view that the backbone of the last frame was called with; of a call of another method the batch's first."""
    args = frames[-1].f_locals.get("args")
    if isinstance(args, tuple) and args:
        return args[0]
    batches = [value for frame in frames for value in frame.f_locals.values() if isinstance(value, Batch)]
    return batches[-1].views[0] if batches and batches[-1].views else None


def _is_misfit(error: BaseException, view: Any) -> bool:
    said = str(error)
    if isinstance(error, TypeError | AttributeError):
        of_ours = OF_STRUCTURES.search(said) if isinstance(view, Tensor) else None
        return bool(of_ours) or (not isinstance(view, Tensor) and type(view).__name__ in said)
    shaped = isinstance(error, RuntimeError | ValueError | IndexError | AssertionError)
    return shaped and bool(OF_SHAPES.search(said)) and OF_ITEMS not in said


def _described(view: Any) -> str:
    """`shape (24, 1), float32`: of one item."""
    x = view.x if isinstance(view, Padded) else view
    if not isinstance(x, Tensor):
        return type(view).__name__
    return f"{'' if x is view else 'Padded, '}shape {tuple(x.shape[1:])}, {str(x.dtype).removeprefix('torch.')}"


def _where(frames: list[tuple[FrameType, int]]) -> str:
    """The last line outside installed packages: in the network's own file, where the user wrote it."""
    for frame, line in reversed(frames):
        file = frame.f_code.co_filename
        if "-packages" not in file and not file.startswith("<"):
            return f" ({Path(file).name}, line {line})"
    return ""
