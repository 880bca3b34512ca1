"""TensorBoard: config, curves, pictures and results in `<run_path>/tensorboard`."""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.core import secrets
from ssl_lightning.runs import places
from ssl_lightning.runs.comparison import decisive, flatten
from ssl_lightning.runs.folder import numbers_or_null


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's logger in one folder per run, so that a resumed run goes on in the same curves.

    Args:
        run_path: the run's folder.
    """

    def __init__(self, run_path: str | Path) -> None:
        super().__init__(save_dir=str(run_path), name="tensorboard", version="", default_hp_metric=False)
        self.run_path = Path(run_path)

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Lightning's, without secrets."""
        super().log_hyperparams(
            secrets.mask(vars(params) if isinstance(params, Namespace) else params), *args, **kwargs
        )

    @rank_zero_only
    def log_results(self, results: dict[str, Any]) -> None:
        """A stage's end: the config and the results as text, and both beside those of other runs (HPARAMS)."""
        config = secrets.mask(places.config_of(self.run_path))
        found = numbers_or_null(secrets.mask(results))
        for name, text in (
            ("config", yaml.safe_dump(config, sort_keys=False)),
            ("results", json.dumps(found, indent=2)),
        ):
            self.experiment.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()))  # as it stands
        figures = {f"results/{k}": v for k, v in flatten(found).items() if isinstance(v, int | float)}
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in decisive(config).items()}
        self.log_hyperparams(plain, figures)
        self.save()
