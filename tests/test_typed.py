"""What is typed is used or refused, over all stages and groups; what a yaml brings is not asked about."""

from pathlib import Path
from typing import Any

import pytest

from ssl_lightning import allowed, build, typed
from ssl_lightning.compose import MAIN_GROUPS, compose
from ssl_lightning.errors import UserError
from ssl_lightning.reading import reads
from ssl_lightning.run_folder import RunFolder
from tests.test_run_folder import add_checkpoint

STAGES = [target.split(".")[-2] for target in allowed.STAGE.functions]
# A word of each group, and the stages that read it: this is what the sources say today.
TRAINING = {"pretrain"}
FITTING = {"pretrain", "linear", "finetune"}
ALL = set(STAGES)
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
    "views=asym": TRAINING,
    "views.global_1.count=2": TRAINING,
    "data=cifar10": ALL,
    "data.size=300": ALL - {"export"},
    "data.labels_per_class=3": ALL - {"export"},
    "data.image_size=64": ALL,
    "data.mean=[0.1,0.1,0.1]": ALL,
    "trainer=cpu": ALL - {"export"},
    "trainer.accelerator=cpu": ALL - {"export"},
    "trainer.devices=2": ALL - {"export"},
    "trainer.max_epochs=3": TRAINING,
    "trainer.limit_val_batches=3": TRAINING,
    "trainer.precision=bf16-mixed": FITTING,
    "trainer.limit_train_batches=3": FITTING,
    "trainer.gradient_clip_val=1.0": FITTING,
    "trainer.enable_progress_bar=false": ALL,  # what shows, and decides nothing
    "trainer.log_every_n_steps=1": ALL,
    "data.num_workers=0": ALL,
    "callbacks=minimal": FITTING,
    "callbacks.collapse=null": TRAINING,
    "~callbacks.online_knn": TRAINING,
    "callbacks.progress.line_seconds=3": ALL,
    "callbacks.interrupt=null": FITTING,
    "logger=tensorboard": FITTING,
    "deterministic=true": ALL - {"export"},
    "seed=3": ALL,
    "resume=never": ALL,
    "experiment=cpu": ALL,
    "debug=fast": ALL,
    "name=x": ALL,
}


def checked(stage: str, *words: str) -> None:
    build.check(compose([f"stage={stage}", *(["ckpt=weights.pt"] if stage != "pretrain" else []), *words]))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_and_group(stage: str) -> None:
    config = compose([f"stage={stage}", "ckpt=weights.pt"])
    for word, read in WORDS.items():
        if stage in read:
            typed.check([word], config.values, config.choices)
            continue
        with pytest.raises(UserError) as refused:
            typed.check([word], config.values, config.choices)
        assert f"'{word}': stage={stage} " in str(refused.value)
        assert "leave it out" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_it_is_asked_of_every_command() -> None:
    checked("pretrain", "optimizer.base_lr=1")
    with pytest.raises(UserError, match=r"'optimizer\.base_lr=1': stage=knn trains no method"):
        checked("knn", "optimizer.base_lr=1")


def test_no_group_is_forgotten() -> None:
    groups = {word.lstrip("+~").split("=")[0].split(".")[0].split("/")[0] for word in WORDS}
    assert groups >= set(MAIN_GROUPS) - {"stage"}


def test_the_way_out_is_named() -> None:
    for word, own in (("optimizer.base_lr=1", "stage.base_lr"), ("trainer.max_epochs=3", "stage.epochs")):
        with pytest.raises(UserError, match=f"leave it out, or give {own}"):
            checked("finetune", word)
    with pytest.raises(UserError, match=r"sets trainer\.max_epochs itself"):
        checked("finetune", "trainer.max_epochs=3")
    with pytest.raises(UserError, match="reads of data only channels, image_size, mean, std"):
        checked("export", "data.batch_size=3")


def test_a_key_of_another_stage() -> None:
    with pytest.raises(UserError, match=r"'stage\.k' is a key of stage=knn \(or pretrain\); add stage=knn"):
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
    typed.check(["optimizer.base_lr=3"], config, {})  # a user's own stage may do as it likes
