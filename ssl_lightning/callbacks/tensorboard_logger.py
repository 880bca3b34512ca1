"""TensorBoard: curves and the view mosaic in `<run_path>/tensorboard`."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger

from ssl_lightning.core import secrets


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's logger in one folder per run, so that a resumed run goes on in the same curves.

    Args:
        run_path: the run's folder.
    """

    def __init__(self, run_path: str | Path) -> None:
        super().__init__(save_dir=str(run_path), name="tensorboard", version="", default_hp_metric=False)

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Lightning's, without secrets."""
        super().log_hyperparams(
            secrets.mask(vars(params) if isinstance(params, Namespace) else params), *args, **kwargs
        )
