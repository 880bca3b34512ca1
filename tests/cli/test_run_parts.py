"""The parts of a run: each is built once, when it is asked for, and is of the type that the stages say they take."""

import inspect
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import Logger
from torch import nn

from ssl_lightning.cli.run import Parts, compose
from ssl_lightning.cli.trainers import TrainerFactory
from ssl_lightning.config.allowed import STAGE_TAKES
from ssl_lightning.config.instantiate import load
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import Judged, MakeTrainer, Start

STAGES = sorted((Path(__file__).parents[2] / "conf" / "stage").glob("*.yaml"))
TYPES: dict[str, Any] = {"Logger": Logger, "nn": nn, "DataModule": DataModule, "SSLMethod": SSLMethod, "Task": Task}
TYPES |= {"Judged": Judged, "Start": Start, "TrainerFactory": TrainerFactory}


def type_of(name: str) -> Any:
    """Of a part, as `Parts` declares it."""
    plain = {"run": RunFolder, "seed": int, "method_name": str, "data_name": str}
    if name in plain:
        return plain[name]
    return typing.get_type_hints(vars(Parts)[name].func, localns=TYPES)["return"]


@pytest.mark.parametrize("file", STAGES, ids=lambda file: file.stem)
def test_a_stage_is_given_what_it_says_it_takes(file: Path) -> None:
    node = yaml.safe_load(file.read_text())
    stage = load(node.get("stage", node)["_target_"])
    hints = typing.get_type_hints(stage)
    taken = [name for name in inspect.signature(stage).parameters if name in Parts.names()]
    assert taken
    for name in taken:
        if name == "trainer":  # a stage says what it calls, and what is made in cli/ can be called so
            assert hints[name] is MakeTrainer
            assert called(type_of(name)) == called(MakeTrainer)
        else:
            wanted = type_of(name)
            assert hints[name] in (wanted, wanted | None), f"{file.stem} takes {name}: {hints[name]}"


def called(kind: type) -> dict[str, tuple[Any, Any]]:
    """How an object of this class is called: each argument's kind and default."""
    return {name: (p.kind, p.default) for name, p in inspect.signature(kind.__call__).parameters.items()}  # type: ignore


def test_a_users_stage_is_known_by_parts_that_there_are() -> None:
    assert set(Parts.names()) >= STAGE_TAKES


def test_parts_are_built_once_and_only_when_asked_for(tmp_path: Path) -> None:
    parts = Parts(compose(["data.batch_size=4", "seed=3"]), RunFolder(tmp_path))
    made: list[str] = []
    build = parts._build
    parts._build = lambda part, node, **extra: made.append(part) or build(part, node, **extra)  # type: ignore

    def stage(method: Any, seed: int, data_name: str, own: int = 1) -> None: ...

    given = parts.of(stage)
    assert given == {"method": parts.method, "seed": 3, "data_name": "shapes"}
    assert parts.method.backbone is parts.backbone
    assert made == ["backbone", "optimizer", "method"]
    assert parts.data.batch_size == 4
    assert made[3:] == ["data"]
    assert parts.start is None
    assert isinstance(parts.trainer, TrainerFactory)
