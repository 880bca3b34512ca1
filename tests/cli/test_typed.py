"""What is typed is used or refused, over all stages and groups; what a yaml brings is not asked about."""

import ast
import inspect
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_lightning.cli import run as build
from ssl_lightning.cli import typed
from ssl_lightning.cli.compose import MAIN_GROUPS, Config, compose
from ssl_lightning.cli.run_parts import Parts
from ssl_lightning.config import allowed, flows, needs
from ssl_lightning.config.reading import arguments, reads
from ssl_lightning.config.signatures import read
from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.msn import MSNLoss
from ssl_lightning.losses.tico import TiCoLoss
from ssl_lightning.losses.vicreg import VICRegLoss
from ssl_lightning.models.heads import MLP
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.training import LabelledData
from tests.runs.test_folder import add_checkpoint

STAGES = [target.split(".")[-2] for target in allowed.STAGE.functions]
# A word of each group, and the stages that read it: this is what the sources say today.
TRAINING = {"pretrain"}
FITTING = {"pretrain", "finetune", "detect", "segment", "label_curve"}  # and "linear" with stage.augmented=true
ALL = set(STAGES) - {"compare"}  # which builds nothing: it reads the folders of runs
OWN = {"transfer"}  # names its data sets itself
NO_SUBSET = {"export", "embed", "attention", "invariance", "predict", "label_curve", "retrieve"}
ANY = set(STAGES)
WORDS = {
    "method=mae": TRAINING,
    "method.loss.temperature=0.3": TRAINING,
    "method/loss=dcl": TRAINING,
    "backbone=resnet18": ALL,
    "backbone.width=8": ALL,
    "optimizer=sgd": TRAINING,
    "optimizer.base_lr=1": TRAINING,
    "+optimizer.optimizer.eps=1e-5": TRAINING,
    "scheduler=constant": TRAINING,
    "scheduler.min_lr=0.1": TRAINING,
    "views=asym": TRAINING | {"quality"},
    "views.global_1.count=2": TRAINING | {"quality"},
    "data=cifar10": ALL - OWN,
    "data.size=300": ALL - OWN - {"export"},
    "data.labels_per_class=3": ALL - OWN - NO_SUBSET,
    "data.label_fraction=0.5": ALL - OWN - NO_SUBSET,
    "data.batch_size=3": ALL - OWN - {"export"},
    "data.eval_resize=40": ALL - OWN,
    "data.bank_size=9": TRAINING,
    "data.query_size=9": TRAINING,
    "data.engine=worker": FITTING | {"quality"},
    "data.resident=false": FITTING,
    "data.image_size=64": ALL - OWN,
    "data.mean=[0.1,0.1,0.1]": ALL - OWN,
    "task=regress": ALL - OWN - {"export", "report", "predict", "attention", "invariance"},
    "trainer=cpu": ALL - {"export"},
    "trainer.accelerator=cpu": ALL - {"export"},
    "trainer.devices=2": ALL - {"export"},
    "trainer.max_epochs=3": TRAINING,
    "trainer.limit_val_batches=3": TRAINING,
    "trainer.precision=bf16-mixed": FITTING,
    "trainer.limit_train_batches=3": FITTING,
    "trainer.gradient_clip_val=1.0": FITTING,
    "trainer.enable_progress_bar=false": ANY,  # what shows, and decides nothing
    "trainer.log_every_n_steps=1": ANY,
    "data.num_workers=0": ANY,
    "callbacks=minimal": FITTING,
    "callbacks.collapse=null": TRAINING,
    "~callbacks.online_knn": TRAINING,
    "callbacks.progress.line_seconds=3": ANY,
    "callbacks.interrupt=null": FITTING,
    "logger=tensorboard": FITTING
    | {"knn", "linear", "embed", "predict", "retrieve", "quality", "transfer", "invariance"},
    "deterministic=true": ALL - {"export"},
    "seed=3": ANY,
    "resume=never": ANY,
    "experiment=cpu": ANY,
    "debug=fast": ANY,
    "name=x": ANY,
}


def line(config: Config, *words: str) -> typed.Line:
    return typed.Line(words, config.values, config.choices, config.refers)


def checked(stage: str, *words: str) -> None:
    build.check(compose([f"stage={stage}", *(["ckpt=weights.pt"] if stage != "pretrain" else []), *words]))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_and_group(stage: str) -> None:
    config = compose([f"stage={stage}", "ckpt=weights.pt"])
    for word, readers in WORDS.items():
        if stage in readers or stage == "doctor":  # which looks at the whole of a training
            typed.check(line(config, word))
            continue
        with pytest.raises(UserError) as refused:
            typed.check(line(config, word))
        assert f"'{word}': stage={stage} " in str(refused.value)
        assert "leave it out" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_it_is_asked_of_every_command() -> None:
    checked("pretrain", "optimizer.base_lr=1")
    with pytest.raises(UserError, match=r"'optimizer\.base_lr=1': stage=knn trains no method"):
        checked("knn", "optimizer.base_lr=1")


# ---- what is read only where something else is set

AUGMENTED = ("stage.epochs=3", "stage.batch_size=8", "stage.base_lr=0.2", "stage.crop_scale=[0.5,1]")
AUGMENTED += ("trainer.precision=bf16-mixed", "callbacks=minimal", "data.engine=worker")
ONLY_WITH = [
    *(("linear", word, "stage.augmented=true") for word in AUGMENTED),
    ("linear", "stage.probe.epochs=3", "stage.augmented=false"),
    ("pretrain", "stage.k=3", "stage.judge=true"),
    ("pretrain", "stage.temperature=0.1", "stage.judge=true"),
]


@pytest.mark.parametrize(("stage", "word", "flag"), ONLY_WITH, ids=[word for _, word, _ in ONLY_WITH])
def test_a_key_that_another_one_turns_on(stage: str, word: str, flag: str) -> None:
    off = flag.replace("true", "x").replace("false", "true").replace("x", "false")
    with pytest.raises(UserError, match=re.escape(f"only with {flag}; add that, or leave it out")):
        checked(stage, word, off)
    checked(stage, word, flag)


def test_every_argument_of_every_stage_is_read_by_some_setting() -> None:
    for target in allowed.STAGE.functions:
        params = set(read(target).params)  # type: ignore[union-attr]
        flags = [key for key, p in read(target).params.items() if p.default_value() in ((True,), (False,))]  # type: ignore[union-attr]
        settings = [dict(zip(flags, values)) for values in itertools.product((True, False), repeat=len(flags))]
        assert set[str]().union(*(arguments(target, values) or () for values in settings)) == params


NEEDED = [
    ("views.global_1.brightness=0.3", "views.global_1.jitter_p=0", "views.global_1.jitter_p above 0"),
    ("method.queue_epoch=3", "method=swav", "method.queue_size above 0"),
    ("method.warmup_teacher_temperature=0.02", "method=dino", "method.warmup_epochs above 0"),
    ("+method.projector.last_norm_affine=false", "seed=1", "method.projector.last_norm=true"),
    ("+method.projector.bias=false", "+method.projector.last_norm=true", "method.projector.last_norm=false"),
    ("scheduler.warmup_start_lr=0.1", "scheduler.warmup_epochs=0", "scheduler.warmup_epochs above 0"),
    ("+trainer.gradient_clip_algorithm=norm", "seed=1", "trainer.gradient_clip_val above 0"),
    ("+method.teacher.rise=linear", "method=moco method.teacher.final_momentum=0.99", "other than momentum"),
    ("method.stride=4", "method=simmim", "a convolutional backbone"),
    ("data.query_size=9", "trainer.limit_val_batches=0", "if there is validation"),
    ("callbacks.online_knn.k=3", "trainer.limit_val_batches=0", "if there is validation"),
    ("data.bank_size=9", "callbacks=minimal", "callbacks.online_knn"),
]


@pytest.mark.parametrize(("word", "beside", "said"), NEEDED, ids=[word for word, _, _ in NEEDED])
def test_an_argument_that_another_one_turns_on(word: str, beside: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        checked("pretrain", *beside.split(), word)
    assert str(refused.value).startswith(f"'{word}': {word.lstrip('+').split('=')[0]} is used only ")
    assert said in str(refused.value)
    assert str(refused.value).endswith("leave this out")


def test_an_argument_that_others_refer_to_counts_there() -> None:
    checked("pretrain", "method=byol", "+method.projector.num_layers=1", "method.projector.hidden_dim=64")
    with pytest.raises(UserError, match=r"only with method\.projector\.num_layers 2 or more"):
        checked("pretrain", "+method.projector.num_layers=1", "method.projector.hidden_dim=64")


@pytest.mark.parametrize("need", needs.NEEDS, ids=lambda need: f"{need.classes}-{need.arguments}")
def test_what_a_key_needs_is_an_argument_of_its_class(need: needs.Need) -> None:
    """And the class, as its constructor begins, is not itself one of those that are refused: nothing is typed then."""
    targets = [name for name in every_class() if name.rpartition(".")[2] in need.classes.split()]
    assert len(targets) == len(need.classes.split())
    for target in targets:
        params = read(target).params  # type: ignore[union-attr]
        assert {*need.arguments.split(), need.other} <= params.keys()


def of_losses(loss: Any) -> Tensor:
    torch.manual_seed(0)
    z = torch.randn(3, 4, 5)
    if isinstance(loss, TiCoLoss):
        return loss(z[0], z[1], torch.eye(5))[0]
    return loss(z[:2], z[2], torch.eye(5)) if isinstance(loss, MSNLoss) else loss(z[0], z[1])


def of_heads(head: Any) -> list[Any]:
    return [str(head), [p.shape for p in head.parameters()]]


UNUSED: list[tuple[Any, Any, dict[str, Any], list[dict[str, Any]]]] = [
    (TiCoLoss, of_losses, {"rho": 0.0}, [{"beta": 0.1}, {"beta": 0.9}]),
    (VICRegLoss, of_losses, {"variance": 0.0}, [{"eps": 0.1}, {"eps": 1e-4}]),
    (MSNLoss, of_losses, {"weight": 0.0}, [{"prior_power": 0.0}, {"prior_power": 0.5}]),
    (MLP, of_heads, {"in_dim": 4, "out_dim": 2, "num_layers": 1}, [{"hidden_dim": 3}, {"norm": False}]),
    (MLP, of_heads, {"in_dim": 4, "out_dim": 2, "last_norm": True}, [{"bias": False}, {"bias": True}]),
    (MLP, of_heads, {"in_dim": 4, "out_dim": 2}, [{"last_norm_affine": False}, {"last_norm_affine": True}]),
    (EMATeacher, lambda t: t.current(3, 9), {"momentum": 0.9, "final_momentum": 0.9}, [{"rise": "linear"}, {}]),
    (WarmupCosine, lambda s: s.factor(1, 9, 3, 1.0), {"warmup_epochs": 0}, [{"warmup_start_lr": 0.5}, {}]),
]


@pytest.mark.parametrize(("make", "look", "off", "values"), UNUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_what_is_refused_would_change_nothing(make: Any, look: Any, off: dict[str, Any], values: Any) -> None:
    one, other = (look(make(**off, **value)) for value in values)
    assert str(one) == str(other)


def every_class() -> list[str]:
    found = ["lightning.Trainer"]
    for file in (Path(__file__).parents[2] / "ssl_lightning").rglob("*.py"):
        module = ".".join(file.relative_to(Path(__file__).parents[2]).with_suffix("").parts)
        tree = ast.parse(file.read_text())
        found += [f"{module}.{node.name}" for node in tree.body if isinstance(node, ast.ClassDef)]
    return found


def test_a_value_that_fails_elsewhere_is_named_as_it_was_typed() -> None:
    for word, key in (("data.image_size=null", "views.global_1.size"), ("data.image_size=1", "views.global_1.size")):
        with pytest.raises(UserError) as refused:
            checked("pretrain", "views=sym", word)
        assert str(refused.value).startswith("data.image_size")
        assert str(refused.value).endswith(f"({key} takes it)")
    with pytest.raises(UserError, match=r"^views\.global_1\.size=1 is out of range"):
        checked("pretrain", "views.global_1.size=1")
    with pytest.raises(UserError, match=r"^method\.projector\.hidden_dim=0 .*[^)]$"):
        checked("pretrain", "method=byol", "method.projector.hidden_dim=0")


def test_no_group_is_forgotten() -> None:
    groups = {word.lstrip("+~").split("=")[0].split(".")[0].split("/")[0] for word in WORDS}
    assert groups >= set(MAIN_GROUPS) - {"stage"}


def test_the_way_out_is_named() -> None:
    for word, own in (("optimizer.base_lr=1", "stage.base_lr"), ("trainer.max_epochs=3", "stage.epochs")):
        with pytest.raises(UserError, match=f"leave it out, or give {own}"):
            checked("finetune", word)
    with pytest.raises(UserError, match=r"sets trainer\.max_epochs itself"):
        checked("finetune", "trainer.max_epochs=3")
    with pytest.raises(UserError, match="reads of data only channels, eval_resize, image_size, mean, std"):
        checked("export", "data.batch_size=3")


def test_a_key_of_another_stage() -> None:
    with pytest.raises(
        UserError, match=r"'stage\.k' is a key of stage=knn \(or pretrain, quality, retrieve, transfer\); add stage=knn"
    ):
        checked("linear", "stage.k=3")
    with pytest.raises(UserError, match=r"'stage\.judge' is a key of stage=pretrain"):
        checked("knn", "stage.judge=false")
    with pytest.raises(UserError, match=r"'data\.root' is a key of data=.*folder"):
        checked("pretrain", "data.root=photos")  # the most frequent slip: data=folder was not typed
    with pytest.raises(UserError, match=r"Did you mean 'stage\.augmented'"):
        checked("linear", "stage.augmentd=true")


def test_the_method_on_a_judging_stage_is_the_runs(tmp_path: Path) -> None:
    config = compose(["method=byol", f"runs_dir={tmp_path}", "name=a"])
    folder = RunFolder(tmp_path / "a")
    folder.open(config.stored)
    add_checkpoint(folder)
    ckpt = f"ckpt={folder.path}"
    build.check(compose(["stage=knn", ckpt, "method=byol"]))
    build.check(compose(["stage=knn", f"{ckpt}/checkpoints/last.ckpt", "method=byol"]))
    with pytest.raises(UserError, match="was trained with method=byol; leave it out"):
        build.check(compose(["stage=knn", ckpt, "method=simclr"]))
    with pytest.raises(UserError, match="trains no method"):
        build.check(compose(["stage=knn", ckpt, "method=byol", "method.projector.out_dim=3"]))


def test_what_a_yaml_brings_is_not_refused() -> None:
    for experiment in ("cifar10/byol", "imagenet/mae"):
        words = ["data.root=x"] if "imagenet" in experiment else []
        checked("knn", f"experiment={experiment}", *words)


# ---- how it is found out


@pytest.mark.parametrize(
    ("function", "attributes", "calls", "whole"),
    [
        ("direct", {"a", "b"}, [], False),
        ("handed", {"a", "b", "c"}, [], False),
        ("by_name", {"a", "b"}, [], False),
        ("bound", {"a", "b"}, [], False),
        ("kept", {"d", "e"}, [], False),
        ("called", set(), [{"x"}, set()], False),
        ("inner", {"f"}, [], False),
        ("stored", set(), [], True),
        ("unknown", set(), [], True),
        ("starred", set(), [], True),
        ("endless", {"g"}, [], False),
    ],
)
def test_reading(function: str, attributes: set[str], calls: list[set[str]], whole: bool) -> None:
    found = reads(f"tests.read_me.{function}", "part")
    assert (found.attributes, [set(call) for call in found.calls], found.whole) == (attributes, calls, whole)


@pytest.mark.parametrize(
    ("known", "read_ones"),
    [
        ({}, {"part", "flag", "other", "a", "b", "c", "d", "e"}),
        ({"flag": True}, {"part", "flag", "a", "b"}),
        ({"flag": False, "other": False}, {"part", "flag", "other", "d", "e"}),
        ({"flag": False, "other": True}, {"part", "flag", "other", "c", "d", "e"}),
        ({"d": False}, {"part", "flag", "other", "a", "b", "c", "d", "e"}),  # it is set anew
    ],
)
def test_what_is_never_reached_is_not_read(known: dict[str, bool], read_ones: set[str]) -> None:
    assert arguments("tests.read_me.branching", known) == read_ones
    attributes = reads("tests.read_me.branching", "part", known).attributes
    assert ("x" in attributes) == (known.get("flag") is not False)
    assert ("y" in attributes) == (known.get("flag") is not True)


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"plain"}, {"plain"}),
        ({"both"}, {"one", "second"}),
        ({"by_local"}, {"plain", "one"}),
        ({"conditional"}, {"one", "second"}),
        ({"method"}, {"one", "second"}),
        ({"asked"}, {"plain"}),
        ({"later"}, {"plain", "second"}),
        ({"base"}, {"second"}),
        ({"loose"}, {"loose"}),
        ({"nothing"}, set()),
        ({"handed_on"}, None),
        ({"hparams"}, None),
    ],
)
def test_where_arguments_go(attributes: set[str], found: set[str] | None) -> None:
    assert flows.arguments("tests.read_me.Holder", attributes) == found


def test_a_stage_that_reads_more_tomorrow_refuses_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the source is asked: the same words on a stage that fits the configured trainer."""
    has = typed.built("tests.read_me.a_stage")
    assert has.reads("callbacks", "collapse")
    assert has.reads("logger", "")
    assert not has.reads("trainer", "max_epochs")
    assert has.reads("views", "global_1")
    assert not has.reads("method", "")
    assert not has.reads("backbone", "")


def test_values_of_no_interest() -> None:
    config: dict[str, Any] = {"stage": {"_target_": "tests.standin.stage"}}
    typed.check(typed.Line(("optimizer.base_lr=3",), config, {}))  # a user's own stage may do as it likes


@pytest.mark.parametrize("stage", ["knn", "linear", "embed", "predict"])
def test_a_logger_of_curves_alone_is_nothing_to_a_stage_that_evaluates(stage: str) -> None:
    for word in ("logger=[csv,wandb]", "logger=wandb"):
        checked(stage, word)
    checked(stage, "logger=wandb", "logger.wandb.project=mine")
    with pytest.raises(UserError, match=r"'logger=csv': stage=\w+ writes no curves; leave it out, or .*logger=wandb"):
        checked(stage, "logger=csv")
    checked("finetune", "logger=csv")


def test_what_the_run_gives_to_a_stage_is_known() -> None:
    assert set(Parts.names()) == typed.GIVEN


def test_a_copy_that_draws_other_views_is_asked_for_what_is_known() -> None:
    source = inspect.getsource(LabelledData)
    assert set(re.findall(r"self\.drawn\.(\w+)", source)) == typed.DRAWING


@pytest.mark.parametrize("stage", ["knn", "linear", "embed", "finetune"])
def test_what_is_pretrained_on_is_nothing_to_a_stage_that_evaluates(stage: str) -> None:
    words = ["data=stl10", "data.pretrain_on=train"]
    build.check(compose(words))
    with pytest.raises(UserError, match=rf"stage={stage} does not read data.pretrain_on"):
        build.check(compose([f"stage={stage}", "ckpt=timm:resnet10t", *words]))


@pytest.mark.parametrize(("name", "refused"), [("resnet10t", True), ("vit_tiny_patch16_224", False)])
def test_the_size_of_a_timm_network_that_takes_any_is_refused(name: str, refused: bool) -> None:
    words = ["backbone=timm", f"backbone.name={name}", "backbone.image_size=64"]
    if not refused:
        build.check(compose(words))
        return
    with pytest.raises(UserError, match=r"resnet10t takes any; set data\.image_size"):
        build.check(compose(words))
