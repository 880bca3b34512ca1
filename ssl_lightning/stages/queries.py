"""The features of files that a user names, fed to a network as the data of the run are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core import progress
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.folder_scan import list_files
from ssl_lightning.evaluation.features import Features
from ssl_lightning.modalities.feeding import Embed, transform_of


@dataclass(frozen=True)
class Files:
    """Named files, their features in the same order, and the transform that makes a view of one."""

    paths: list[str]
    features: Features
    transform: Any

    def view(self, row: int) -> Tensor:
        return self.transform(self.paths[row])


def features_of_files(backbone: nn.Module, card: Mapping[str, Any], data: DataModule, query: str) -> Files:
    """Of one file, or of all files under a folder that can be read.

    Raises UserError for a path that is not there, a folder without such files, and a file that cannot be read.
    """
    transform = transform_of({**card, **data.card()})
    path = Path(query).expanduser()
    if not path.exists():
        raise UserError(f"stage.query={query} is neither a file nor a folder; give the path of one")
    if not hasattr(transform, "kind"):
        transform()  # says why there is none
    paths = list_files(path, transform.kind).paths() if path.is_dir() else [str(path)]
    with progress.phase(f"features of {len(paths):,} queries"):
        x = Embed(backbone, transform)(paths)
    none = torch.full((len(paths),), -1)
    return Files(paths, Features(x, none, torch.arange(len(paths))), transform)
