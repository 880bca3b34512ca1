"""Makes Lightning trainers for the stages: the configured arguments, callbacks and loggers, and the run's folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler

from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.children import take_over
from ssl_lightning.instantiate import instantiate, signature_of
from ssl_lightning.run_folder import is_main_process

# Lightning announces at each start what hardware it found and which ranks there are; our lines say what matters.
for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.distributed"):
    logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)

# Affairs of Lightning's own: torch's changes, and a log interval that our own callbacks go by.
warnings.filterwarnings("ignore", message=r"The number of training batches .* is smaller than the logging interval")
warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")

ALWAYS = ("progress", "interrupt")  # callbacks that a stage's own list does not replace

HOOKS_OF_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)

_NOTHING = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Measures nothing, and costs nothing: Lightning asks about a hundred times a step, and builds a generator each."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _NOTHING


def pass_over(callbacks: Iterable[Callback]) -> None:
    """Spares Lightning the hooks of a step that a callback leaves empty: it calls what is callable, some fifty a step.

    Each costs about a microsecond, most of it for the name that a profiler would be told.
    """
    for callback in callbacks:
        for hook in HOOKS_OF_A_STEP:
            if hook not in vars(callback) and getattr(type(callback), hook) is getattr(Callback, hook):
                setattr(callback, hook, None)


def build_each(nodes: Mapping[str, Any] | None, trusted: Iterable[str], run_path: Path) -> dict[str, Any]:
    """Build a dict of nodes; null ones are left out, and `run_path` goes to those that take it."""
    built = {}
    for name, node in (nodes or {}).items():
        if node is not None:
            extra = {"run_path": run_path} if signature_of(node["_target_"], tuple(trusted)).accepts("run_path") else {}
            built[name] = instantiate(node, tuple(trusted), **extra)
    return built


class TrainerFactory:
    """`trainer(callbacks=None, subfolder=None, **overrides) -> lightning.Trainer`.

    Args:
        config: the run's plain config; its `trainer`, `callbacks` and `logger` are used.
        run_path: the run's folder.
    """

    def __init__(self, config: Mapping[str, Any], run_path: Path) -> None:
        self.config, self.run_path = config, run_path
        self.trusted = tuple(config.get("trusted_packages") or ())
        self.loggers: list[Logger] = []  # of the newest trainer

    def __call__(
        self, callbacks: list[Callback] | None = None, subfolder: str | None = None, **overrides: Any
    ) -> Trainer:
        """A new trainer.

        Args:
            callbacks: a stage's own instead of the configured ones (progress and interrupt stay); [] for none at all.
            subfolder: of the run, for a stage that trains several times.
            overrides: arguments of lightning.Trainer that win over the configured ones.
        """
        root = self.run_path / subfolder if subfolder else self.run_path
        arguments: dict[str, Any] = instantiate(self.config["trainer"], self.trusted) | overrides
        chosen = self._callbacks(callbacks, root)
        if not arguments.pop("enable_progress_bar", True):
            chosen = [callback for callback in chosen if not isinstance(callback, Progress | ProgressBar)]
        if "logger" not in arguments:
            self.loggers = list(build_each(self.config.get("logger"), self.trusted, root).values())
            arguments["logger"] = self.loggers or False
        arguments["sync_batchnorm"] = self._sync_batchnorm(arguments)
        arguments["profiler"] = arguments.get("profiler") or NoProfiler()
        arguments.setdefault("enable_checkpointing", any(isinstance(callback, Checkpoint) for callback in chosen))
        pass_over(chosen)
        trainer = Trainer(
            **arguments,
            callbacks=chosen,
            default_root_dir=root,
            deterministic=self.config.get("deterministic", False),
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in chosen),
            use_distributed_sampler=False,  # the data module shards by itself, exactly
        )
        return take_over(trainer)

    def _callbacks(self, own: list[Callback] | None, root: Path) -> list[Callback]:
        nodes = dict(self.config.get("callbacks") or {})
        if own is None:
            return list(build_each(nodes, self.trusted, root).values())
        if not own:
            return []
        kept = {name: nodes.get(name) for name in ALWAYS}
        return [*own, *build_each(kept, self.trusted, root).values()]

    @staticmethod
    def _sync_batchnorm(arguments: Mapping[str, Any]) -> bool:
        """As configured on an accelerator; never on a CPU, for which torch has none."""
        wanted = bool(arguments.get("sync_batchnorm"))
        accelerator = arguments.get("accelerator", "auto")
        on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
        several = str(arguments.get("devices", 1)) not in ("1", "auto") or arguments.get("num_nodes", 1) > 1
        if wanted and on_cpu and several and is_main_process():
            print("BatchNorm uses each process' own batch: torch has no SyncBatchNorm on CPU")
        return wanted and not on_cpu
