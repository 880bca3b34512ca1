"""Weights & Biases: the run's config, curves, pictures, results and page, under one run id for good.

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
from ssl_lightning.reports import kept, pages
from ssl_lightning.reports.rows import predictions
from ssl_lightning.runs import places

AXES = {"train/*": "trainer/global_step", "val/*": "epoch"}
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

    An offline run is uploaded later with `wandb sync <run_path>/wandb/offline-run-*`. Runs of one sweep are one
    group, and so are a run and the stages on it, whatever their names; the job type is the stage; method, data and
    stage are tags.

    Args:
        run_path: the run's folder; its `config.yaml` becomes the W&B config, its name the run's name.
        project: the W&B project.
        entity: user or team; None is the key's own.
    """

    _staging: str | None = None  # where wandb puts files of tables before they are sent: ours, unless the user says it

    def __init__(self, run_path: str | Path, project: str = "ssl-lightning", entity: str | None = None) -> None:
        self.run_path = Path(run_path)
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        config, name = self._config()
        super().__init__(
            name=name,
            save_dir=str(self.run_path),
            id=run_id(self.run_path) if rank_zero_only.rank == 0 else None,  # type: ignore[attr-defined]
            project=project,
            entity=entity,
            mode=mode,
            config=config,
            **place_of(config),
        )
        if mode != "online":  # wandb cannot ask the server what there is to resume and says so; the id joins the parts
            self._wandb_init["resume"] = None

    def _config(self) -> tuple[dict[str, Any], str]:
        """(the run's config, its name): of a training in a subfolder of a stage the stage's, and both names."""
        own = places.config_of(self.run_path)
        if own or not (above := places.config_of(self.run_path.parent)):
            return secrets.mask(own), self.run_path.name
        return secrets.mask(above), f"{self.run_path.parent.name}/{self.run_path.name}"

    @property
    def experiment(self) -> Any:
        """The W&B run; the command line that wandb notes for it holds no secrets."""
        import wandb

        if self._experiment is None and wandb.run is not None and wandb.run.id != self._wandb_init["id"]:
            wandb.finish()  # of an earlier training of this process: Lightning would log into that run
        if self._experiment is None and os.environ.get("WANDB_DATA_DIR") in (None, WandbLogger._staging):
            WandbLogger._staging = os.environ["WANDB_DATA_DIR"] = str(self.run_path.absolute() / "wandb")
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            self._wandb_init.setdefault("settings", wandb.Settings(init_timeout=PATIENCE))
        typed, sys.argv = sys.argv, secrets.mask_words(sys.argv)
        new = self._experiment is None
        try:
            run = super().experiment
        except (wandb.Error, ValueError) as error:  # no network, a key that is none, a project that may not be
            why = one_line.text(error)
            raise UserError(f"W&B cannot begin ({why}); set WANDB_MODE=offline to keep the run here") from error
        finally:
            sys.argv = typed
        if new and hasattr(run, "define_metric"):
            for name, axis in AXES.items():  # the last value counts: the best would be a choice on test items
                run.define_metric(name, step_metric=axis, summary="last")
        return run

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:
        """Lightning's, without secrets."""
        super().log_hyperparams(secrets.mask(vars(params) if isinstance(params, Namespace) else params))

    @rank_zero_only
    def log_results(self, results: dict[str, Any]) -> None:
        """A stage's end: the results as the run's summary and as a table, baselines beside what was learned; pictures,
        a table of items and what kNN says of them, and the page, as far as they lie in the run's folder."""
        flat = dict(_flatten(secrets.mask(results)))
        self.experiment.summary.update(flat)
        self.log_table("results", columns=["name", "value"], data=[[name, str(value)] for name, value in flat.items()])
        self._log_items()
        page = self.run_path / pages.FILE
        if page.is_file():
            self._log_page(page)
        self.experiment.finish()  # what comes later in this process is another run

    def _log_items(self) -> None:
        """Test items, the wrong ones first."""
        import wandb

        rows = predictions(kept.read(self.run_path))
        if rows:
            table = wandb.Table(columns=["image", "class", "kNN says", "right"])
            for row in rows:
                image = None if row["image"] is None else wandb.Image(row["image"])
                table.add_data(image, row["class"], row["knn"], row["right"])
            self.experiment.log({"predictions": table})

    def _log_page(self, page: Path) -> None:
        """The page as an artifact; wandb takes the file where it lies, without a copy elsewhere."""
        import wandb

        artifact = wandb.Artifact(f"report-{self._wandb_init['id']}", type="report")
        artifact.add_file(str(page), policy="immutable")
        self.experiment.log_artifact(artifact)


def place_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Group, job type and tags of a run, from its config."""
    choices, name = config.get("choices") or {}, str(config.get("name") or "")
    chosen = [choices.get(part) for part in ("method", "data", "stage", "task")]
    tags = [str(choice)[:64] for choice in chosen if choice and choice != "classify"]
    swept = "=" in name.rpartition("/")[2] and "/" in name
    tags += ["sweep"] if swept else []
    judged = "" if swept or choices.get("stage") == "pretrain" else _name_of(config.get("ckpt"))
    group = (judged or name).partition("/")[0][:128] or None
    return {"group": group, "job_type": choices.get("stage"), "tags": tags or None}


def _name_of(ckpt: Any) -> str:
    """The name of the run that a stage works on; "" where its weights are of no run."""
    try:
        found = places.find_run(str(ckpt)) if ckpt else None
        return str(places.config_of(found).get("name") or "") if found else ""
    except (UserError, OSError):
        return ""


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """{"a": {"b": 1}} -> [("a/b", 1)]."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return pairs
