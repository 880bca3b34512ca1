"""Looks at a checkpoint before a strategy reads it in its own way, which may unpickle whatever a stranger put there.

Lightning's FSDP strategy unpickles a checkpoint of one file, and torch the `.metadata` of one that is a folder, and
values in it that are no tensors. Here each is read first, as plain types alone.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, ClassVar

import torch
from lightning.pytorch.strategies import Strategy
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint import metadata as kinds

from ssl_lightning.core.bounded import Bounded, TooMuch
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import saving, torch_files

PLAIN = {
    ("torch", "Size"): torch.Size,
    ("pathlib", "PosixPath"): PurePath,  # where it was saved, which nothing here needs
    ("pathlib", "WindowsPath"): PurePath,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): filesystem._StorageInfo,
    ("torch.distributed.checkpoint.filesystem", "_StoragePrefix"): filesystem._StoragePrefix,
}


def checked(path: Path | None, strategy: Strategy) -> Path | None:
    """`path`, the checkpoint to go on from. Raises UserError where this strategy would run code that it holds."""
    if path is None or type(strategy).load_checkpoint is Strategy.load_checkpoint:
        return path  # read by our own `AtomicCheckpointIO`, or by Lightning's as plain types
    if path.is_dir():
        check_folder(path)
    else:
        saving.load(path, strict=True)
    return path


def check_folder(path: Path) -> None:
    """Raise a UserError for a sharded checkpoint that holds more than plain types."""
    try:
        described = (path / ".metadata").read_bytes()
        found = _Unpickler(io.BytesIO(described), len(described)).load()
        for index, part in found.storage_data.items():
            if not isinstance(found.state_dict_metadata.get(index.fqn), kinds.TensorStorageMetadata):
                _check_value(path, part)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; use an earlier checkpoint") from error
    except TooMuch as error:
        raise UserError(f"{path} {error}; use an earlier checkpoint") from error
    except Exception as error:  # a foreign file fails inside the reader in a dozen ways
        raise UserError(f"{path} is damaged, or holds Python objects, which could run code on loading") from error


class _Unpickler(Bounded):
    """Knows the classes of torch's own description of a sharded checkpoint, and nothing else."""

    def load_reduce(self) -> None:
        self.allowance.copy(self.stack[-1], *self.stack[-1])
        super().load_reduce()

    def load_newobj(self) -> None:
        self.allowance.copy(self.stack[-1], *self.stack[-1])
        super().load_newobj()

    def load_build(self) -> None:
        self.allowance.copy(self.stack[-1])
        super().load_build()

    steps: ClassVar[dict[int, Callable[..., None]]] = {
        **Bounded.steps,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PLAIN:
            return PLAIN[module, name]
        found = getattr(kinds if module == kinds.__name__ else torch if module == "torch" else None, name, None)
        if isinstance(found, torch.dtype) or (isinstance(found, type) and found.__module__ == kinds.__name__):
            return found
        raise pickle.UnpicklingError(f"{module}.{name}")


def _check_value(path: Path, part: Any) -> None:
    """A value that is no tensor is a file of torch's inside of another."""
    if getattr(part, "transform_descriptors", None):
        raise pickle.UnpicklingError("packed in a way that is not looked into")
    with open(path / part.relative_path, "rb") as file:
        file.seek(part.offset)
        value = file.read(part.length)
    torch_files.read(io.BytesIO(value), strict=True)
    torch.load(io.BytesIO(value), map_location="cpu", weights_only=True)
