"""What numbers may be: every number that a config can set has a range, and what is out of it is refused in one line."""

import ast
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_lightning.cli.run import Config, check, compose
from ssl_lightning.config import ranges, signatures
from ssl_lightning.core.errors import UserError
from tests.every_key import with_value

PACKAGE = Path(ranges.__file__).parents[1]
ROOMS = ("methods", "losses", "models", "optim", "callbacks", "data", "evaluation", "parts", "stages", "modalities")
FREE = ("mean", "value_range", "gain", "noise_snr", "level")  # numbers of any size are right here
# Classes that no config names: loops, batches, results, and what the data module makes.
INNER = "ExactEpochLoop ExactFitLoop RawBatch ArrayImages ProbeResult Trained TrainSampler EvalSampler DealtSampler"
INNER += " Readout Loader Scan FileImages Request ArrayClips FileClips Normal Length Look Batch Seen"
INNER += " Boxes Draw Place Listed CountedSampler"
INNER += " Size Job Mix"
INNER += " FeatureCache Pair Kept"


def arguments() -> Iterator[tuple[str, str]]:
    """(dotted name of a class or stage, argument) for each argument whose annotation says that it is a number."""
    for room in ROOMS:
        for file in sorted((PACKAGE / room).rglob("*.py")):
            module = ".".join(("ssl_lightning", *file.relative_to(PACKAGE).with_suffix("").parts))
            for node in ast.parse(file.read_text()).body:
                public = isinstance(node, ast.ClassDef) or getattr(node, "name", "") in ("run", "resnet")
                found = signatures.read(f"{module}.{node.name}") if public and node.name[0] != "_" else None  # type: ignore[attr-defined]
                for name, param in (found.params if found else {}).items():
                    said = ast.unparse(param.annotation) if param.annotation else ""
                    is_number = "int" in said.split(" | ") or "float" in said or "[int" in said
                    if is_number and "Callable" not in said and node.name not in INNER.split():  # type: ignore[attr-defined]
                        yield f"{module}.{node.name}", name  # type: ignore[attr-defined]


def refused(target: str, name: str, value: Any) -> bool:
    try:
        ranges.check(target, name, value, "here")
    except UserError as error:
        return str(error).startswith("here=") and "\n" not in str(error)
    return False


@pytest.fixture(scope="module")
def default() -> Config:
    return compose([])


def with_override(config: Config, override: str) -> Config:
    """A composed config as it would be with one more word, without the time that composing takes."""
    key, _, value = override.lstrip("+").partition("=")
    return replace(with_value(config, key, yaml.safe_load(value)), overrides=(override,))


CONFIGURABLE = sorted(arguments())


@pytest.mark.parametrize(("target", "name"), CONFIGURABLE, ids=[f"{t.split('.')[-1]}.{n}" for t, n in CONFIGURABLE])
def test_every_number_of_ours_has_a_range(target: str, name: str) -> None:
    if name not in FREE:
        assert refused(target, name, -1.5), f"{name} of {target} may be anything: give it a range in ranges.py"
    assert refused(target, name, math.nan)
    assert refused(target, name, [0.5, math.inf])
    assert refused(target, name, 10**30)


def test_every_name_in_the_tables_is_one_of_an_argument() -> None:
    known = {name for _, name in arguments()} | set(signatures.read("ssl_lightning.cli.compose.Settings").params)  # type: ignore[union-attr]
    known |= {f"{target.rpartition('.')[2]}.{name}" for target, name in arguments()}
    assert {name for name in ranges._FLAT["ssl_lightning"] if name not in known} == set()
    trainer = signatures.read("lightning.Trainer")
    assert trainer is not None
    assert set(ranges._FLAT["lightning.Trainer"]) <= set(trainer.params)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=0", "data.batch_size=0 is out of range; it must be 1 or more"),
        ("data.num_workers=-1", "must be 0 or more"),
        ("seed=-1", "seed=-1 is out of range"),
        ("seed=4294967296", "at most 4294967295"),
        ("rank_timeout=0", "must be above 0"),
        ("optimizer.base_lr=.nan", "give a number that is finite, above 0"),
        ("optimizer.base_lr=.inf", "finite"),
        ("method.loss.temperature=-1", "above 0"),
        ("stage.k=0", "stage.k=0"),
        ("stage.temperature=0", "stage.temperature=0"),
        ("data.std=[0.2,0,0.2]", "data.std=[0.2, 0, 0.2] is out of range"),
        ("data.mean=[.5,.5]", "data.mean has 2 numbers and data.std 3"),
        ("data.mean=[]", "data.mean has 0 numbers"),
        ("data.size=0", "data.size=0"),
        ("data.batch_size=100000000000000000000", "too large"),
        ("scheduler.warmup_epochs=-1", "0 or more"),
        ("scheduler.warmup_epochs=7", "no shorter than the run (trainer.max_epochs=5)"),
        ("callbacks.checkpoint.every_n_steps=0", "every_n_steps=0"),
        ("trainer.limit_train_batches=0", "above 0"),
        ("trainer.accumulate_grad_batches=0", "1 or more"),
        ("trainer.gradient_clip_val=-1", "above 0"),
        ("trainer.check_val_every_n_epoch=0", "1 or more"),
        ("+trainer.val_check_interval=0", "above 0"),
        ("trainer.max_epochs=-5", "-1 or more"),
        ("trainer.max_epochs=0", "trains nothing"),
        ("trainer.max_epochs=null", "no end"),
        ("trainer.max_epochs=-1", "no end"),
        ("trainer.precision=16-true", "use 32-true"),
        ("trainer.precision=64", "use 32-true"),
        ("trainer.devices=-3", "trainer.devices=-3 is no number of devices"),
        ("trainer.devices=0", "is no number of devices"),
        ("trainer.devices=[]", "is no number of devices"),
        ("trainer.devices=[0,0]", "different GPUs"),
        ("trainer.devices=1.5", "is no number of devices"),
        ("trainer.devices=100000", "more than this machine can have"),
        ("trainer.num_nodes=0", "1 or more"),
        ("trainer.strategy=ddp_spawn", "use ddp"),
        ("trainer.strategy=ddp_fork", "use ddp"),
        ("trainer.strategy=ddp_notebook_find_unused_parameters_true", "use ddp"),
        ("+trainer.gradient_clip_algorithm=most", "one of norm, value"),
        ("method.projector=null", "method.projector wants a node with a _target_, not null"),
        ("method.projector=[1]", "method.projector wants a node with a _target_"),
        ("optimizer.scheduler=4", "optimizer.scheduler wants a node with a _target_"),
        ("optimizer.scheduler=null", "optimizer.scheduler wants a node with a _target_"),
        ("data.views=5", "data.views wants"),
        ("views.global_1=3", "views.global_1 wants"),
    ],
)
def test_a_value_out_of_its_range_is_one_line_before_anything_is_built(
    override: str, message: str, default: Config
) -> None:
    config = with_override(default, override)
    with pytest.raises(UserError) as caught:
        check(config)
    assert message.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "override",
    [
        "trainer.devices=auto",
        "trainer.devices=[0,1]",
        "trainer.devices='0,1'",
        "trainer.devices=-1",
        "trainer.limit_val_batches=0",
        "trainer.max_steps=10",
        "scheduler.warmup_epochs=0",
        "trainer.precision=bf16-mixed",
        "trainer.log_every_n_steps=0",
    ],
)
def test_what_is_right_stays_right(override: str, default: Config) -> None:
    check(with_override(default, override))


def test_a_warm_up_that_is_cut_is_told(default: Config) -> None:
    default = with_value(default, "trainer.max_epochs", 10)
    config = with_override(default, "scheduler.warmup_epochs=2")
    check(config)
    assert ranges.notes(config.values, config.names) == [
        "scheduler.warmup_epochs=2: the warm-up is at most a tenth of the run, 1 epochs"
    ]
    assert ranges.notes(config.values, default.names) == []  # nobody asked for more


def test_a_class_of_the_user_s_own_takes_what_it_wants() -> None:
    ranges.check("mine.Loss", "temperature", -1, "method.loss.temperature")
    ranges.check("torch.nn.ELU", "alpha", 3.0, "backbone.alpha")
