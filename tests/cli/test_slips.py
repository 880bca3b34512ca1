"""What people type who come from elsewhere gets the right name back."""

from pathlib import Path

import pytest

from ssl_lightning.__main__ import main
from ssl_lightning.cli import arguments, compose, help, slips
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import folder as run_folder


def places(*words: str) -> set[str]:
    """Every key and group of a composed config."""
    keys = run_folder.flatten(compose.compose(words).values)
    return {".".join(key.split(".")[:n]) for key in keys for n in range(1, key.count(".") + 2)} | set(help.groups())


@pytest.fixture(scope="module")
def default() -> set[str]:
    return places()


@pytest.fixture(scope="module")
def finetune() -> set[str]:
    return places("stage=finetune", "data=folder", "data.root=x", "method=moco", "optimizer=adamw")


MEANT = [
    *(("lr", "0.1", "'optimizer.base_lr'? It is the rate at a global batch of 256"),),
    *((f"{part}.lr", "1", "'optimizer.base_lr'") for part in ("optimizer", "trainer", "method", "optimizer.optimizer")),
    *((word, "3", "'trainer.max_epochs'") for word in ("epochs", "num_epochs", "trainer.epochs", "stage.epochs")),
    *((word, "3", "'data.batch_size'") for word in ("batch_size", "bs", "batch-size", "trainer.batch_size")),
    *((word, "2", "'trainer.devices'") for word in ("devices", "gpus", "gpu", "num_gpus", "trainer.gpus")),
    *((word, "2", "'data.num_workers'") for word in ("num_workers", "workers", "data.workers")),
    *((word, "x", "'data.root' is a key of data=folder") for word in ("data.root", "root", "data_dir", "data.path")),
    *(("dataset", "cifar10", "'data=cifar10'"), ("dataset", "mine", "'data'"), ("model", "moco", "'method=moco'")),
    *(("arch", "resnet18", "'backbone=resnet18'"), ("model", "resnet50", "'backbone=resnet50'")),
    *((word, "runs/x", "'ckpt'") for word in ("checkpoint", "weights", "pretrained", "resume_from")),
    *(("wandb", "true", "'logger=wandb'"), ("tensorboard", "true", "'logger=tensorboard'")),
    *(("logger.wandb.project", "x", "a key of logger=wandb"), ("optimizer.betas", "x", "'optimizer.optimizer.betas'")),
    *(("method.queue_size", "9", "a key of method=moco (or moco_v1,"), ("amp", "true", "'trainer.precision'")),
    *(("backbone.patch_size", "4", "a key of backbone=vit_base"), ("views.count", "2", "'views.global_1.count'")),
    *(("output_dir", "x", "'runs_dir'"), ("random_seed", "1", "'seed'"), ("loss", "nt_xent", "'method/loss=nt_xent'")),
    *(
        ("optim", "sgd", "'optimizer=sgd'"),
        ("transforms", "weak", "'views=weak'"),
        ("wd", "1", "'optimizer.weight_decay'"),
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), MEANT, ids=[key for key, _, _ in MEANT])
def test_what_is_meant(key: str, value: str, message: str, default: set[str]) -> None:
    assert message in slips.hint(key, value, default)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lr", "'stage.base_lr'"),
        ("epochs", "'stage.epochs'"),
        ("batch_size", "'stage.batch_size'"),
        ("root", "'data.root'"),
        ("queue_size", "'method.queue_size'"),
        ("optimizer.momentum", "a key of optimizer=lars (or sgd)"),
    ],
)
def test_what_is_meant_in_another_stage(key: str, message: str, finetune: set[str]) -> None:
    assert message in slips.hint(key, "1", finetune)


def test_every_meaning_is_a_key_of_some_config(default: set[str], finetune: set[str]) -> None:
    others = places("method=dino", "data=folder", "data.root=x", "optimizer=sgd", "logger=wandb", "stage=knn")
    vit = places("method=mae", "data=cifar10", "method/loss=masked_pixels")
    known = default | finetune | others | vit
    assert {key for keys in slips.MEANT.values() for key in keys} - known == set()


def test_what_nobody_knows_gets_no_guess(default: set[str]) -> None:
    assert slips.hint("zebra", "1", default) == ""
    assert slips.hint("data.zebra", "1", default) == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr", "0.1"], "without dashes: optimizer.base_lr=0.1"),
        (["--lr=0.1", "data=shapes"], "without dashes: optimizer.base_lr=0.1"),
        (["--batch-size", "64"], "data.batch_size=64"),
        (["--epochs"], "trainer.max_epochs=..."),
        (["--data=cifar10"], "data=cifar10"),
        (["--method", "moco"], "method=moco"),
        (["--wandb"], "logger=wandb"),
        (["--hlep"], "Did you mean '--help'?"),
        (["--multi-run"], "Did you mean '--multirun'?"),
    ],
)
def test_flags_of_other_programs(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        arguments.parse(words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [("lr=0.1", "optimizer.base_lr"), ("+epochs=3", "trainer.max_epochs"), ("logger=csv,wandb", "write logger=[...]")],
)
def test_a_slip_is_one_line_and_leaves_nothing(
    word: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []
