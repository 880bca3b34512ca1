"""Where a run writes: below `runs_dir`, into a folder that is new, empty or its own, and nowhere else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ssl_lightning.__main__ import main
from ssl_lightning.cli.compose import compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.folder import RunFolder
from tests.security.attack import Attack, everything, parametrize, refused
from tests.test_cli import BASE

OURS = {"name": "a", "seed": 0, "resume": "auto", "data": {}, "trainer": {}, "choices": {}}
PLAIN, FOREIGN = "give a plain name", "nothing is written"


def named(name: str, tried: str, value: str) -> Attack:
    return Attack(name, tried, PLAIN, {"words": [f"name={value}"]})


def project(folder: Path) -> None:
    """Somebody's work."""
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.py").write_text("precious")
    (folder / "README.md").write_text("precious")


def project_with_config(folder: Path) -> None:
    project(folder)
    (folder / "config.yaml").write_text("model: precious\nseed: 1\ntrainer: {max_epochs: 3}\n")


def project_with_ours(folder: Path) -> None:
    project(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(OURS))


def project_with_results(folder: Path) -> None:
    project_with_config(folder)
    (folder / "results.json").write_text('{"precious": 1}')
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_text("precious")


def bomb(folder: Path) -> None:
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    folder.mkdir()
    (folder / "config.yaml").write_text("\n".join(["a0: &a0 [x]", *lines]))


def piped(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(OURS))
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def linked(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder.parent / "precious").write_text("precious")
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(OURS))
        (folder / name).symlink_to(folder.parent / "precious")

    return make


def outward(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


def loop(folder: Path) -> None:
    folder.symlink_to(folder)


def foreign(name: str, tried: str, make: Callable[[Path], None], says: str = FOREIGN, *words: str) -> Attack:
    return Attack(name, tried, says, {"words": ["runs_dir=.", "name=proj", *words], "make": make})


ATTACKS = [
    named("up", "`name=../x`", "../x"),
    named("up twice", "`name=a/../../x`", "a/../../x"),
    named("absolute", "`name=/tmp/x`", "/tmp/canary"),
    named("empty", "an empty name", "''"),
    named("blank", "a name of spaces", "'  '"),
    named("dot", "`name=.`", "."),
    named("dot inside", "`name=a/./b`", "a/./b"),
    named("end", "a slash at the end", "a/"),
    named("double", "two slashes", "a//b"),
    named("home", "`name=~/x`", "'~/x'"),
    named("newline", "a line break in the name", '"a\nb"'),
    named("nul", "a NUL in the name", "'a\0b'"),
    named("escape", "a terminal's escape in the name", "'a\x1b[2Jb'"),
    named("long", "a name of 300 letters", "x" * 300),
    Attack("runs_dir", "an empty `runs_dir`", "may not be the path", {"words": ["runs_dir=''"]}),
    Attack("sweep", "the name of a sweep", PLAIN, {"words": ["-m", "seed=0,1", "name=../x"]}),
    foreign("project", "`runs_dir=. name=proj` over a folder of code", project),
    foreign("project afresh", "the same with `resume=never`, which moves folders", project, FOREIGN, "resume=never"),
    foreign("own config", "a folder with a config.yaml of another program", project_with_config),
    foreign("own results", "the same with checkpoints and results", project_with_results),
    foreign("our config", "a config.yaml of ours among other files, without a checkpoint", project_with_ours),
    foreign("below a project", "`name=proj/x` inside such a folder", project, FOREIGN, "name=proj/x"),
    foreign("sweep over it", "a sweep over such a folder", project, FOREIGN, "-m", "seed=0,1"),
    foreign("link out", "a folder that is a link out of `runs_dir`", outward, "leads out", "runs_dir=./proj_dir"),
    foreign("link loop", "a folder that is a link to itself", loop, "cannot be looked into"),
    foreign("bomb", "a config.yaml with an alias bomb", bomb, "too many values"),
    foreign("pipe: config", "a config.yaml that is a named pipe", piped("config.yaml"), "regular file"),
    foreign("pipe: checkpoint", "a last.ckpt that is a named pipe", piped("checkpoints/last.ckpt"), "regular file"),
    foreign("pipe: id", "a wandb_id.txt that is a named pipe", piped("wandb_id.txt"), "regular file"),
    foreign("link: metrics", "a metrics.csv that is a link to a file elsewhere", linked("metrics.csv"), "leads out"),
    foreign("link: results", "a results.json that is a link to a file elsewhere", linked("results.json"), "leads out"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.timeout(60)
@parametrize(ATTACKS)
def test_refused_and_nothing_touched(attack: Attack, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = list(attack.data["words"])
    if attack.name == "link out":  # the link must lie in runs_dir, its end outside
        (here / "proj_dir").mkdir()
        (here / "elsewhere").mkdir()
        (here / "proj_dir" / "proj").symlink_to(here / "elsewhere")
        words = ["runs_dir=proj_dir", "name=proj"]
    elif "make" in attack.data:
        attack.data["make"](here / "proj")
        names = [word for word in words if word.startswith("name=")]
        words = [word for word in words if not word.startswith("name=")] + names[-1:]
    before = everything(here)
    assert attack.refused in refused([*BASE, "stage=standin", *words], capsys)
    assert everything(here) == before  # no lock, no probe, no runs/


@pytest.mark.parametrize("kept", ["checkpoints/last.ckpt", "finetune/checkpoints/last.ckpt", "backbone.safetensors"])
def test_a_run_of_ours_may_hold_anything(kept: str, here: Path) -> None:
    project_with_ours(here / "a")
    (here / "a" / kept).parent.mkdir(parents=True, exist_ok=True)
    (here / "a" / kept).write_text("")
    assert RunFolder(here / "a").open(OURS) == ("new" if "safetensors" in kept else "resumed")


def test_a_run_that_was_killed_early_goes_on(here: Path) -> None:
    folder = RunFolder(here / "a")
    assert folder.open(OURS) == "new"
    for name in ("metrics.csv", "views.png", "wandb_id.txt", ".config.yaml.77.tmp", ".knn-x.lock"):
        (folder.path / name).write_text("")
    for name in ("checkpoints", "tensorboard", "wandb", "finetune"):
        (folder.path / name / "x").mkdir(parents=True)
    (folder.path / "knn-x").mkdir()
    (folder.path / "knn-x" / "config.yaml").write_text(yaml.safe_dump(OURS))
    assert RunFolder(here / "a").open(OURS) == "new"
    (folder.path / "config.yaml").unlink()  # killed before even that was written
    with pytest.raises(UserError, match=FOREIGN):
        RunFolder(here / "a").open(OURS)
    (here / "b").mkdir()
    (here / "b" / ".config.yaml.77.tmp").write_text("")
    assert RunFolder(here / "b").open(OURS) == "new"


def test_names_inside_and_stages_inside(here: Path) -> None:
    assert main([*BASE, "stage=standin", "name=study/one"]) == 0
    assert main([*BASE, "stage=standin", "name=study/two"]) == 0
    assert main([*BASE, "stage=standin", "name=study/one", "seed=1", "resume=never"]) == 0
    found = compose(["stage=knn", "ckpt=runs/study/one", "data=cifar10"])
    assert str(found.path) == "runs/study/one/knn-cifar10"
    (here / "runs" / "deep").symlink_to(here / "runs" / "study")
    assert main([*BASE, "stage=standin", "name=deep/three"]) == 0


def test_a_stage_writes_nothing_beside_foreign_weights(here: Path) -> None:
    project_with_results(here / "proj")
    assert str(compose(["stage=knn", "ckpt=proj/checkpoints/last.ckpt"]).path) == "runs/knn-last-shapes"


def test_what_is_refused_later_leaves_no_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*BASE, "stage=standin", "runs_dir=new/runs", "name=a/b"]
    assert "nothing" not in refused([*words, "resume=must"], capsys)
    assert list(here.iterdir()) == []
