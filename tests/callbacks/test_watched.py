"""Callbacks read of a method what `core.watched` says, and nothing else: read from their sources, and from a run."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.callbacks.throughput import Throughput
from ssl_lightning.cli.trainers import build_each
from ssl_lightning.core import watched
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import ArrayImages
from ssl_lightning.parts.ema_teacher import EMATeacher
from tests.callbacks.toy import ToyData, ToyMethod, fit
from tests.methods.harness import config_of

CALLBACKS = Path(watched.__file__).parents[1] / "callbacks"
TEACHER = Path(watched.__file__).parents[1] / "parts" / "ema_teacher.py"  # a callback too, with the teacher's parts


def members(protocol: type) -> set[str]:
    return {name for name in (*vars(protocol), *protocol.__annotations__) if not name.startswith("_")}


MAY = members(watched.Watched) | members(watched.Pictured) | members(watched.HasFrozen) | members(watched.Titled)
OUTPUTS = {*watched.StepOutput.__annotations__, *watched.EmbedOutput.__annotations__}


# ---- from the sources


def reads_of_a_method(tree: ast.AST) -> Iterator[str]:
    """Attributes of what is called `pl_module`, `method` or `module`, or is `trainer.lightning_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and of_a_method(node.value):
            yield node.attr
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("getattr", "hasattr")
            and of_a_method(node.args[0])
        ):
            yield ast.literal_eval(node.args[1])


def of_a_method(node: ast.AST) -> bool:
    return ast.unparse(node) in (
        "pl_module",
        "method",
        "watched(pl_module)",
        "trainer.lightning_module",
        "trainer.model",
    )


def reads_of_an_output(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "outputs":
            yield from [node.slice.value] if isinstance(node.slice, ast.Constant) else []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "outputs.get":
            yield ast.literal_eval(node.args[0])


@pytest.mark.parametrize("file", [*sorted(CALLBACKS.glob("*.py")), TEACHER], ids=lambda file: file.stem)
def test_the_sources_name_nothing_else(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert set(reads_of_a_method(tree)) <= MAY
    assert set(reads_of_an_output(tree)) <= OUTPUTS
    for node in ast.walk(tree):  # which loader is which has a name
        if isinstance(node, ast.Compare) and ast.unparse(node.left) == "dataloader_idx":
            assert ast.unparse(node.comparators[0]) in ("BANK", "QUERIES")


# ---- from a run


class Recorded(ToyMethod):
    """Notes each of its attributes that a line of a file in `callbacks/` asks for."""

    def __getattribute__(self, name: str) -> Any:
        caller = sys._getframe(1)
        file = Path(caller.f_code.co_filename)
        if CALLBACKS in file.parents or file == TEACHER:
            object.__getattribute__(self, "__dict__").setdefault("_asked", set()).add(name)
        return super().__getattribute__(name)


class Least(Recorded):
    """Has all that the Protocols say."""

    features_are_readout = False
    frozen = True

    def pictures(self, batch: Any) -> dict[str, list[Tensor]]:
        return {"same": [batch.views[0]]}


def every_callback(folder: Path) -> list[Any]:
    """Those of conf/callbacks, made to look at each step."""
    nodes = {name: dict(node) for name, node in config_of("simclr")["callbacks"].items()}
    for node in nodes.values():
        node.update({"every_n_steps": 1} if "every_n_steps" in node else {})
    files = {file.stem for file in CALLBACKS.glob("*.py")}
    used = {node["_target_"].split(".")[-2] for node in nodes.values()}
    no_callbacks = {"__init__", "captions", "labels", "watcher", "exact_loops", "metrics_csv", "notebook", "average"}
    assert files == used | no_callbacks | {"tensorboard_logger", "wandb_logger", "throughput"}, (
        "a new callback is missing in this test"
    )
    return [Throughput(), *build_each("callbacks", nodes, (), folder).values()]


def run(method: Recorded, folder: Path, *more: Any) -> tuple[set[str], Any]:
    loggers = build_each("logger", config_of("simclr")["logger"], (), folder)
    data = ToyData()
    data.train_set.labels = torch.zeros(1).long()  # type: ignore[attr-defined]
    trainer = fit(method, folder, [*more, *every_callback(folder)], data, max_epochs=2, logger=list(loggers.values()))
    return method.__dict__["_asked"], trainer


@pytest.mark.filterwarnings("ignore:.*eval mode")
def test_a_run_reads_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked, trainer = run(Least(EMATeacher(0.9)), tmp_path)
    own = asked - set(dir(nn.Module)) - {"device", "log", "log_dict", "training"}
    five = {"embed", "teacher_pairs", "features_are_readout", "pictures", "frozen"}
    assert own == five | {"title", "progress_words"}
    assert asked <= MAY
    assert "measures nothing here" not in caplog.text
    assert {"val/knn_top1", "val/probe_top1", "val/feature_std"} <= set(trainer.callback_metrics)
    assert (tmp_path / "same.png").exists()


class Curious(Throughput):
    """A callback that reads what it should not; its code claims to stand among ours."""


exec(
    compile(
        "def peek(self, trainer, pl_module):\n    self.seen = pl_module.backbone, pl_module.ema\n",
        str(CALLBACKS / "planted.py"),
        "exec",
    ),
    planted := {},
)
Curious.on_train_start = planted["peek"]  # type: ignore[method-assign]


def test_a_callback_that_reads_more_is_found(tmp_path: Path) -> None:
    asked, _ = run(Recorded(), tmp_path, Curious())
    assert asked - MAY == {"backbone", "ema"}
    planted_source = ast.parse("def f(pl_module):\n    pl_module.projector(1)\n    getattr(method, 'queue')\n")
    assert set(reads_of_a_method(planted_source)) - MAY == {"projector", "queue"}


def test_the_queries_are_the_test_split_and_the_bank_is_the_probes() -> None:
    class Two(DataModule):
        def load(self) -> Loaded:
            sizes = (6, 5, 4)  # train, test, probe
            sets = [ArrayImages(torch.zeros(n, 4, 4, 3).byte(), torch.zeros(n).long(), ["a"]) for n in sizes]
            return sets[0], sets[1], sets[2]

    loaders = Two(batch_size=8, image_size=4, num_workers=0).val_dataloader()
    counts = [sum(len(raw.indices) for raw in loader) for loader in loaders]
    assert counts[watched.BANK] == 4
    assert counts[watched.QUERIES] == 5
    assert len(loaders) == 2
