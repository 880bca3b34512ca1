"""Makes Lightning trainers for the stages: the configured arguments, callbacks and loggers, and the run's folder."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler

from ssl_lightning.callbacks.checkpoint import go_on_exactly
from ssl_lightning.callbacks.interrupt import keep_lightning_out
from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.config.allowed import PLACES
from ssl_lightning.config.instantiate import instantiate, instantiate_arguments, signature_of
from ssl_lightning.core import distributed, launch, one_line
from ssl_lightning.core.crew import Crew
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.launch import Launch, is_main_process

# Lightning announces at each start what hardware it found and which ranks there are; our lines say what matters.
CHATTY = ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.distributed")
# Affairs of Lightning's own: torch's changes, and a log interval that our own callbacks go by; and that frozen parts
# are in evaluation mode, as they are meant to be.
UNHELPFUL = (
    r"The number of training batches .* is smaller than the logging interval",
    r"Found \d+ module\(s\) in eval mode",
    r".*isinstance\(treespec, LeafSpec\).*",
)

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


def quieten_lightning() -> None:
    """Leave out what Lightning says of itself. At the start of each run: a caller from Python gets its own back."""
    for name in CHATTY:
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in UNHELPFUL:
        warnings.filterwarnings("ignore", message=message)


class NoProfiler(PassThroughProfiler):
    """Measures nothing, and costs nothing: Lightning asks about a hundred times a step, and builds a generator each."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _NOTHING


class Started(ClusterEnvironment):
    """What Lightning asks about a process that something has started already: `launch` knows it.

    Lightning's own environments would each need a package or a variable more, and SLURM's takes signals over.
    `index`: of this process' device among those that its trainer is given.
    """

    def __init__(self, place: Launch, index: int) -> None:
        super().__init__()
        self.place, self.index = place, index
        self._port = place.port or 0

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.place.address or launch.LOOPBACK

    @property
    def main_port(self) -> int:
        if not self._port:  # a group of one process
            with socket.create_server((launch.LOOPBACK, 0)) as free:
                self._port = free.getsockname()[1]
        return self._port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.place.world

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.index

    def node_rank(self) -> int:
        return self.place.rank // self.place.local_world if self.place.even else self.place.rank


def pass_over(callbacks: Iterable[Callback]) -> None:
    """Spares Lightning the hooks of a step that a callback leaves empty: it calls what is callable, some fifty a step.

    Each costs about a microsecond, most of it for the name that a profiler would be told.
    """
    for callback in callbacks:
        for hook in HOOKS_OF_A_STEP:
            if hook not in vars(callback) and getattr(type(callback), hook) is getattr(Callback, hook):
                setattr(callback, hook, None)


def build_each(group: str, nodes: Mapping[str, Any] | None, trusted: Iterable[str], run_path: Path) -> dict[str, Any]:
    """Build the nodes of a group of the config; null ones are left out, and `run_path` goes to those that take it."""
    built = {}
    for name, node in (nodes or {}).items():
        if node is not None:
            takes = PLACES[group]
            params = signature_of(node["_target_"], tuple(trusted), takes).params
            extra = {"run_path": run_path} if "run_path" in params else {}
            built[name] = instantiate(node, tuple(trusted), takes, run_path, **extra)
    return built


class TrainerFactory:
    """`trainer(callbacks=None, subfolder=None, **overrides) -> lightning.Trainer`.

    Args:
        config: the run's plain config; its `trainer`, `callbacks` and `logger` are used.
        run_path: the run's folder.
        earlier: the ends that the run had before it was made longer, as its config.yaml tells them.
    """

    def __init__(self, config: Mapping[str, Any], run_path: Path, earlier: Iterable[Mapping[str, Any]] = ()) -> None:
        quieten_lightning()
        self.config, self.run_path, self.earlier = config, run_path, list(earlier)
        self.trusted = tuple(config.get("trusted_packages") or ())
        self.loggers: list[Logger] = []  # of the newest trainer
        self.place, _ = launch.settle(launch.here(), config.get("trainer") or {})

    def __call__(
        self, callbacks: list[Callback] | None = None, subfolder: str | None = None, **overrides: Any
    ) -> Trainer:
        """A new trainer, as `stages.common.MakeTrainer` has it."""
        root = self.run_path / subfolder if subfolder else self.run_path
        asked = {name: value for name, value in self.config["trainer"].items() if name not in overrides}
        arguments = instantiate_arguments("lightning.Trainer", asked, self.trusted, root) | overrides
        chosen = self._callbacks(callbacks, root)
        if not arguments.pop("enable_progress_bar", True):
            chosen = [callback for callback in chosen if not isinstance(callback, Progress | ProgressBar)]
        if "logger" not in arguments:
            self.loggers = list(build_each("logger", self.config.get("logger"), self.trusted, root).values())
            arguments["logger"] = self.loggers or False
        self._take_place(arguments)
        arguments["sync_batchnorm"] = self._sync_batchnorm(arguments, say=callbacks != [])
        arguments["profiler"] = arguments.get("profiler") or NoProfiler()
        arguments.setdefault("enable_checkpointing", any(isinstance(callback, Checkpoint) for callback in chosen))
        pass_over(chosen)
        trainer = _trainer(
            **arguments,
            callbacks=chosen,
            default_root_dir=root,
            deterministic=self.config.get("deterministic", False),
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in chosen),
            use_distributed_sampler=False,  # the data module shards by itself, exactly
        )
        trainer.earlier_ends = [] if "max_epochs" in overrides else self.earlier  # type: ignore[attr-defined]
        keep_lightning_out(trainer)
        go_on_exactly(trainer)  # without a Checkpoint callback, too: a signal saves the run
        return trainer

    def begin_talk(self, crew: Crew, seconds: float) -> None:
        """Make the process group now, not in the first fit: so the judging stages know that they are not alone."""
        trainer = self(callbacks=[], logger=False, enable_checkpointing=False, enable_progress_bar=False)
        strategy = trainer.strategy
        if hasattr(strategy, "_timeout"):
            strategy._timeout = timedelta(seconds=seconds)
        crew.meet(seconds)  # all have imported torch: what follows waits no longer than `seconds`
        strategy.setup_environment()
        distributed.barrier()

    def _take_place(self, arguments: dict[str, Any]) -> None:
        """Tell Lightning which of the started processes this is. Alone it may still start some in ways of its own."""
        place, own = self.place, list(_as_list(arguments.get("plugins")))
        if any(isinstance(plugin, ClusterEnvironment) for plugin in own) or arguments.get("accelerator") == "tpu":
            return
        if not place.kind and (launch.copies(arguments) or launch.wanted(arguments) != 1):
            return
        index = place.local_rank
        on_cpu = arguments.get("accelerator") == "cpu" or not torch.accelerator.is_available()
        gpus = 0 if on_cpu else torch.accelerator.device_count()
        bound = gpus == 1 < place.local_world and place.kind in ("srun", "mpirun", "jsrun")
        if place.world > 1 and (bound or not place.even):
            # A GPU for each process, which sees no other; or machines with unequal numbers of processes.
            arguments["devices"] = [place.local_rank % gpus] if gpus else 1
            arguments["num_nodes"], index = place.world, 0
            place = replace(place, local_world=1)
        arguments["plugins"] = [*own, Started(place, index)]

    def _callbacks(self, own: list[Callback] | None, root: Path) -> list[Callback]:
        nodes = dict(self.config.get("callbacks") or {})
        if own is None:
            return list(build_each("callbacks", nodes, self.trusted, root).values())
        if not own:
            return []
        kept = {name: nodes.get(name) for name in ALWAYS}
        return [*own, *build_each("callbacks", kept, self.trusted, root).values()]

    @staticmethod
    def _sync_batchnorm(arguments: Mapping[str, Any], say: bool) -> bool:
        """As configured on an accelerator; never on a CPU, for which torch has none."""
        wanted = bool(arguments.get("sync_batchnorm"))
        accelerator = arguments.get("accelerator", "auto")
        on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
        several = (launch.count(arguments.get("devices", 1)) or 1) * (arguments.get("num_nodes") or 1) > 1
        if wanted and on_cpu and several and say and is_main_process():
            print("BatchNorm uses each process' own batch: torch has no SyncBatchNorm on CPU")
        return wanted and not on_cpu


def _trainer(**arguments: Any) -> Trainer:
    """Lightning's trainer; what it says of its arguments is one line for the user."""
    asked = arguments.get("accelerator")
    if asked in ("gpu", "cuda") and not torch.accelerator.is_available():
        raise UserError(f"trainer.accelerator={asked}, but torch finds no GPU on this machine; use trainer=cpu")
    with one_line.building("trainer"):
        return Trainer(**arguments)


def _as_list(plugins: Any) -> Iterable[Any]:
    return plugins if isinstance(plugins, list | tuple) else [plugins] if plugins else []
