"""Weights & Biases: the run's config, curves, view mosaic and final table, under one run id for good.

Only this logger imports wandb, and only when it is chosen.
"""

import netrc
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.core import files, one_line, secrets
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import places

PATIENCE = 25.0  # seconds for the server to answer at the start; WANDB_INIT_TIMEOUT overrules it


def has_key() -> bool:
    """Whether wandb could log in without asking: WANDB_API_KEY, or an entry for it in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].strip("/")
    try:
        return path.is_file() and netrc.netrc(str(path)).authenticators(host) is not None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return False


def run_id(run_path: Path) -> str:
    """The id kept in `wandb_id.txt`, made at the first call, so that a resumed run goes on in the same W&B run.

    For rank 0 alone: the others log nothing, and would race to make the file.
    """
    path = run_path / "wandb_id.txt"
    if not path.exists():
        run_path.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, uuid4().hex[:12])
    return path.read_text().strip()


class WandbLogger(LightningWandbLogger):
    """Lightning's logger, offline unless a key is there (or WANDB_MODE says otherwise).

    An offline run is uploaded later with `wandb sync <run_path>/wandb/offline-run-*`.

    Args:
        run_path: the run's folder; its `config.yaml` becomes the W&B config, its name the run's name.
        project: the W&B project.
        entity: user or team; None is the key's own.
    """

    def __init__(self, run_path: str | Path, project: str = "ssl-lightning", entity: str | None = None) -> None:
        self.run_path = Path(run_path)
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        super().__init__(
            name=self.run_path.name,
            save_dir=str(self.run_path),
            id=run_id(self.run_path) if rank_zero_only.rank == 0 else None,  # type: ignore[attr-defined]
            project=project,
            entity=entity,
            mode=mode,
            config=self._config(),
        )
        if mode != "online":  # wandb cannot ask the server what there is to resume and says so; the id joins the parts
            self._wandb_init["resume"] = None

    def _config(self) -> dict[str, Any]:
        return secrets.mask(places.config_of(self.run_path))

    @property
    def experiment(self) -> Any:
        """The W&B run; the command line that wandb notes for it holds no secrets."""
        import wandb

        if "WANDB_INIT_TIMEOUT" not in os.environ:
            self._wandb_init.setdefault("settings", wandb.Settings(init_timeout=PATIENCE))
        typed, sys.argv = sys.argv, secrets.mask_words(sys.argv)
        try:
            return super().experiment
        except (wandb.Error, ValueError) as error:  # no network, a key that is none, a project that may not be
            why = one_line.text(error)
            raise UserError(f"W&B cannot begin ({why}); set WANDB_MODE=offline to keep the run here") from error
        finally:
            sys.argv = typed

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:
        """Lightning's, without secrets."""
        super().log_hyperparams(secrets.mask(vars(params) if isinstance(params, Namespace) else params))

    @rank_zero_only
    def log_results(self, results: dict[str, Any]) -> None:
        """A stage's results as the run's summary and as one table, baselines beside what was learned."""
        flat = dict(_flatten(secrets.mask(results)))
        self.experiment.summary.update(flat)
        self.log_table("results", columns=["name", "value"], data=[[name, str(value)] for name, value in flat.items()])


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """{"a": {"b": 1}} -> [("a/b", 1)]."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return pairs
