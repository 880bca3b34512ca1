"""The objects of one run, made from its config when a stage asks for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ssl_lightning.cli.compose import Config, compose
from ssl_lightning.config import instantiate as building
from ssl_lightning.config.allowed import PLACES
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.launch import is_main_process
from ssl_lightning.core.words import KINDS
from ssl_lightning.runs.folder import RunFolder

if TYPE_CHECKING:  # nothing heavy is imported before a part is asked for
    from lightning.pytorch.loggers import Logger
    from torch import nn

    from ssl_lightning.cli.trainers import TrainerFactory
    from ssl_lightning.core.task import Task
    from ssl_lightning.data.base import DataModule
    from ssl_lightning.methods.base import SSLMethod
    from ssl_lightning.stages.common import Judged, Start

MEASURED = tuple(f"{kind}_" for kind in KINDS)
CLASSIFY = "ssl_lightning.tasks.classify.Classify"


def other_kind(config: Config) -> str:
    """What to say of a method that is made for another kind of data than these; "" where it fits."""
    trusted, values = config.settings.trusted_packages, config.values
    kinds = [
        getattr(building.load(str(values[part]["_target_"]), trusted, PLACES[part]), "modality", "")
        for part in ("method", "data")
        if "_target_" in (values[part] or {})
    ]
    if len(kinds) < 2 or not all(kinds) or kinds[0] == kinds[1]:
        return ""
    made = f"method={config.choices['method']} is made for {kinds[0]} data, and this is {kinds[1]}"
    return f"{made}; choose another method, or other data"


def changed(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the data of a probe.

    Where the groups that are held out are a field of the names' pattern, and that pattern is changed, they are gone
    with it; who speaks is told of speakers on both sides.
    """
    gone = {"held_out": None} if "labels" in changes and "held_out" in data and data.get("group") is None else {}
    return {**data, **gone, **changes}


class Parts:
    """The objects of a run, each built once, and only when it is asked for. A stage gets those that it takes."""

    def __init__(self, config: Config, folder: RunFolder) -> None:
        self.config, self.run = config, folder
        self.seed = config.settings.seed
        self._own_loggers: list[Logger] | None = None
        self.method_name, self.data_name = str(config.choices["method"]), str(config.choices["data"])

    @classmethod
    def names(cls) -> list[str]:
        """Of the arguments that a stage may take."""
        lazy = [name for name, member in vars(cls).items() if isinstance(member, cached_property)]
        return [*lazy, "run", "seed", "method_name", "data_name"]

    def of(self, stage: Callable[..., Any]) -> dict[str, Any]:
        """The parts that a stage's function takes, by the names of its arguments."""
        taken = inspect.signature(stage).parameters
        return {name: getattr(self, name) for name in self.names() if name in taken}

    def _build(self, part: str, node: Any, **extra: Any) -> Any:
        trusted = self.config.settings.trusted_packages
        if "_target_" not in (node or {}):
            raise UserError(f"{part} has no _target_; choose one with {part}=<name>, or say which class it is")
        return building.instantiate(node, trusted, PLACES[part], **extra)

    def _node(self, part: str, **extra: Any) -> Any:
        return self._build(part, self.config.values[part], **extra)

    @cached_property
    def backbone(self) -> nn.Module:
        """With the weights of `ckpt=` where the stage trains from them, else as it is drawn."""
        return self.start.backbone if self.start else self._node("backbone")

    @cached_property
    def method(self) -> SSLMethod:
        if why := other_kind(self.config):
            raise UserError(why)
        return self._node("method", backbone=self.backbone, optimizer=self._node("optimizer"))

    @cached_property
    def start(self) -> Start | None:
        """What a training begins with where `ckpt=` gives its weights, else None."""
        from ssl_lightning.stages.common import begin

        ckpt, node = self.config.settings.ckpt, self.config.values["backbone"]
        resumed = self.run.checkpoint is not None
        return begin(ckpt, node, lambda plain: self._build("backbone", plain), resumed) if ckpt else None

    @cached_property
    def judged(self) -> Judged:
        """The pretrained backbone of `ckpt=` beside one with random weights."""
        from ssl_lightning.stages.common import open_backbone

        settings, chosen = self.config.settings, self.config.names("backbone")
        node, trusted = self.config.values["backbone"], settings.trusted_packages
        return open_backbone(settings.ckpt, node, chosen, settings.seed, trusted)

    @cached_property
    def open_judged(self) -> Callable[[str | None, int], Judged]:
        """Opens the backbone of `ckpt=` again, or another one, beside one with random weights of a seed."""
        from ssl_lightning.stages.common import open_backbone

        settings, node = self.config.settings, self.config.values["backbone"]

        def opened(ref: str | None, seed: int) -> Judged:
            chosen = ref is None and self.config.names("backbone")
            return open_backbone(ref or settings.ckpt, node, chosen, seed, settings.trusted_packages)

        return opened

    @cached_property
    def data(self) -> DataModule:
        return self._node("data")

    @cached_property
    def task(self) -> Task:
        """What labels mean; a run from before there were tasks has classes."""
        node = self.config.values.get("task") or {"_target_": CLASSIFY}
        task: Task = self._build("task", node)
        task.node = dict(node)
        return task

    @cached_property
    def other_data(self) -> Callable[[Mapping[str, Any]], DataModule]:
        """Makes the run's data with some keys changed, for the probes of a stage."""
        return lambda changes: self._build("data", changed(self.config.values["data"], changes))

    @cached_property
    def named_data(self) -> Callable[[str, Mapping[str, Any]], DataModule]:
        """Makes the data set of a name, a folder or a file, with some keys set, for the network of `ckpt=`."""
        return lambda which, keys: self._build("data", self._composed(which, keys).values["data"])

    def _composed(self, which: str, keys: Mapping[str, Any]) -> Config:
        from ssl_lightning.cli import call

        words = call.data_words(which) | {f"data.{key}": value for key, value in keys.items()}
        words |= {"ckpt": self.config.settings.ckpt, "seed": self.seed}
        config = compose(["stage=knn", *call.words_of(words)])
        building.check(config.values["data"], self.config.settings.trusted_packages, "data", (), PLACES["data"])
        return config

    @cached_property
    def named_task(self) -> Callable[[str], Task]:
        """Makes the task of a name."""
        return lambda name: self._build("task", compose(["stage=knn", "ckpt=none.pt", f"task={name}"]).values["task"])

    @cached_property
    def trainer(self) -> TrainerFactory:
        from ssl_lightning.cli.trainers import TrainerFactory

        return TrainerFactory(self.config.values, self.run.path, self.run.lengths)

    def fingerprint(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """`data_fingerprint` for results with figures of these sets; {} of other results. Rank 0 alone computes it."""
        measured = "data" in vars(self) and any(key.startswith(MEASURED) for key in results)
        if not measured or not is_main_process() or not self.data.sets_read:  # they are never read for this alone
            return {}
        from ssl_lightning.data.fingerprint import fingerprint
        from ssl_lightning.reports.pages import quietly

        with quietly("the fingerprint of the data"):
            sets = self.data.train_set, self.data.test_set, self.data.probe_set
            return {"data_fingerprint": fingerprint(sets, len(sets[1]), self.data.num_classes)}
        return {}

    def result_loggers(self) -> list[Logger]:
        """The loggers that take the results of the run: those of its training, or, of a stage that trained nothing or
        in subfolders, others for the run itself. A stage that needs no trainer has none."""
        if "trainer" not in vars(self):
            return []
        made = [logger for logger in self.trainer.loggers if getattr(logger, "run_path", None) == self.run.path]
        return [logger for logger in made or self.own_loggers() if hasattr(logger, "log_results")]

    def own_loggers(self) -> list[Logger]:
        """The loggers of the run itself, built at the first call: what one of them lacks is said then."""
        if self._own_loggers is None:
            from ssl_lightning.cli.trainers import build_each

            trusted, nodes = self.config.settings.trusted_packages, self.config.values.get("logger")
            self._own_loggers = list(build_each("logger", nodes, trusted, self.run.path).values())
        return self._own_loggers
