"""The command line from end to end, with stages that train nothing."""

import ast
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from ssl_lightning.__main__ import main
from ssl_lightning.cli.run import check, compose
from ssl_lightning.core import missing
from ssl_lightning.core.errors import UserError

CONF = Path(__file__).parent / "conf_standin"
BASE = ["--config-dir", str(CONF), "trusted_packages=[tests]", "data=blank", "views=blank"]

STOPS = [(signal.SIGINT, 130), *((getattr(signal, f"SIG{name}"), 75) for name in ("TERM", "USR1", "USR2", "HUP"))]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*overrides: str) -> int:
    return main([*BASE, "stage=standin", *overrides])


def calls(path: Path) -> list[str]:
    return (path / "calls.txt").read_text().splitlines()


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_a_run_its_repetition_and_its_refusal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = here / "runs" / "standin-simclr-blank"
    assert command() == 0
    results = json.loads((run / "results.json").read_text())
    assert results["knn_top1"] == 0.5
    assert (results["stage"], results["method"], results["data"], results["seed"]) == ("standin", "simclr", "blank", 0)
    assert len(results["config_sha256"]) == 64
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"] == {"batch_size": 4}
    assert config["choices"]["method"] == "simclr"
    assert "50.0 %" in capsys.readouterr().out
    assert sorted(p.name for p in run.iterdir()) == ["calls.txt", "config.yaml", "results.json"]
    assert [p.name for p in here.iterdir()] == ["runs"]  # nothing of Hydra's

    assert command() == 0  # a finished run does nothing, and says so
    assert "finished" in capsys.readouterr().out
    assert len(calls(run)) == 1

    assert command("seed=1") == 2
    err = capsys.readouterr().err
    assert "seed: 0 -> 1" in err
    assert err.count("\n") == 1
    assert command("seed=1", "resume=never") == 0
    assert calls(run) == ["1 simclr blank 0.0"]
    assert calls(run.with_name(f"{run.name}.old-1")) == ["0 simclr blank 0.0"]


def test_seed_zero_is_a_seed_and_reaches_the_stage(here: Path) -> None:
    assert command("seed=0", "name=zero", "stage.boost=0.1") == 0
    assert calls(here / "runs" / "zero") == ["0 simclr blank 0.1"]


def test_an_error_in_a_stage_keeps_its_traceback(here: Path) -> None:
    with pytest.raises(RuntimeError, match="this job fails"):
        command("stage.fail=true")
    assert not (here / "runs" / "standin-simclr-blank" / "results.json").exists()


def test_a_full_disk_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("stage._target_=tests.standin.full_disk", "~stage.boost", "~stage.fail") == 2
    assert "disk of runs/standin-simclr-blank is full" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_signal_outside_of_training(here: Path, number: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    target = ["stage._target_=tests.standin.stopped", "~stage.boost", "~stage.fail", f"+stage.number={int(number)}"]
    assert command(*target) == code
    assert "Go on with: python -m ssl_lightning" in capsys.readouterr().err
    assert signal.getsignal(number) is before


# ---- names and places ----------------------------------------------------------------------------------------------


def test_the_name_of_a_run(here: Path) -> None:
    def place(*overrides: str) -> str:
        return str(compose(overrides).path)

    assert place() == "runs/simclr-shapes"
    assert place("method=moco", "data=cifar10") == "runs/moco-cifar10"
    assert place("name=mine", "runs_dir=/tmp/r") == "/tmp/r/mine"
    assert place("debug=fast") == "runs/simclr-shapes-fast"
    assert place("stage=linear", "ckpt=timm:resnet18.a1") == "runs/linear-timm-resnet18.a1-shapes"
    assert place("stage=linear", "ckpt=elsewhere/weights.pt") == "runs/linear-weights-shapes"
    run = here / "runs" / "moco-cifar10"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("{name: a, seed: 0, resume: auto, data: {}, trainer: {}}")
    (run / "checkpoints" / "last.ckpt").write_text("")
    assert place("stage=linear", "ckpt=runs/moco-cifar10", "data=cifar10") == "runs/moco-cifar10/linear-cifar10"
    assert place("stage=linear", "ckpt=runs/moco-cifar10/checkpoints/last.ckpt") == "runs/moco-cifar10/linear-shapes"
    assert place("stage=linear", "ckpt=runs/moco-cifar10", "name=mine") == "runs/mine"
    assert place("ckpt=runs/moco-cifar10") == "runs/simclr-shapes"  # pretraining from it is a run of its own


def test_choosing_another_optimizer_brings_its_own_rate() -> None:
    lars = compose(["method=simclr", "data=cifar10"])  # shapes brings the CPU recipe
    adamw = compose(["method=simclr", "data=cifar10", "optimizer=adamw"])
    assert "lars" in lars.values["optimizer"]["optimizer"]["_target_"]
    assert lars.values["optimizer"]["base_lr"] == 0.4
    assert adamw.values["optimizer"]["base_lr"] != lars.values["optimizer"]["base_lr"]
    assert compose(["method=simclr", "optimizer.base_lr=0.123"]).values["optimizer"]["base_lr"] == 0.123


@pytest.mark.parametrize("choice", ["wandb", "[csv,wandb]"])
def test_one_logger_or_several(choice: str) -> None:
    wanted = choice.strip("[]").split(",")
    assert list(compose([f"logger={choice}"]).values["logger"]) == wanted


def test_what_the_command_line_names(here: Path) -> None:
    assert compose(["backbone=resnet18"]).names("backbone")
    assert compose(["backbone.width=8"]).names("backbone")
    assert not compose(["method=moco", "trainer.max_epochs=1"]).names("backbone")


# ---- --cfg ---------------------------------------------------------------------------------------------------------


def test_cfg_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "method=moco", "data.batch_size=7"]) == 0
    raw = capsys.readouterr().out
    assert "${" in raw
    assert main(["--cfg", "job", "--resolve", "method=moco", "data.batch_size=7"]) == 0
    shown = capsys.readouterr().out
    assert "${" not in shown
    config = yaml.safe_load(shown)
    assert config["data"]["batch_size"] == 7
    assert "hydra" not in config
    assert config == compose(["method=moco", "data.batch_size=7"]).values


# ---- mistakes ------------------------------------------------------------------------------------------------------

MISTAKES = [
    ("metod=moco", "Did you mean 'method'?"),
    ("method=mocco", "there is no method=mocco. Did you mean 'moco'?"),
    ("method/los=byol", "Did you mean 'method/loss'?"),
    ("method/loss=byl", "Did you mean 'byol'?"),
    ("method=zzz", "There are: barlow_twins, byol, "),
    ("logger=[csv,wandv]", "Did you mean 'wandb'?"),
    ("logger=null", "there is no logger=null"),
    ("method.los.temperature=1", "Did you mean 'method.loss.temperature'?"),
    ("temperature=1", "Did you mean 'method.loss.temperature'?"),
    ("data.batchsize=3", "Did you mean 'data.batch_size'?"),
    ("trainer.device=4", "Did you mean 'trainer.devices'?"),
    ("sead=1", "Did you mean 'seed'?"),
    ("qqqqqq=1", "--cfg job shows all"),
    ("+qqqqqq=1", "there is no 'qqqqqq'"),
    ("data.batch_size=1,2", "add -m"),
    ("method=moco,byol", "add -m"),
    ("seed='", "cannot be read"),
    ("data.batch_size=big", "data.batch_size wants an integer, not 'big'"),
    ("seed=one", "seed wants an integer, not 'one'"),
    ("resume=maybe", "resume wants one of auto, must, never"),
    ("deterministic=perhaps", "deterministic wants true or false or one of warn"),
    ("trainer.max_epochs=soon", "trainer.max_epochs wants an integer"),
    ("trainer.precision=bf17-mixed", "Did you mean 'bf16-mixed'?"),
    ("method.loss.temperature=hot", "method.loss.temperature wants a number, not 'hot'"),
    ("+method.projectr=1", "Did you mean 'projector'?"),
    ("+trainer.max_epoch=1", "Did you mean 'max_epochs'?"),
    ("method.loss._target_=ssl_lightning.losses.nt_xent.NTXnt", "Did you mean 'NTXent'?"),
    ("method.loss._target_=os.system", "may not be named"),
]


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_a_mistake_is_one_line(override: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([override]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(here.iterdir()) == []


def test_a_missing_value_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("root: ???\nimage_size: 4")
    with pytest.raises(UserError, match=r"data.root has no default: give data.root=\.\.\."):
        compose(["data=mine"], tmp_path)
    (tmp_path / "data" / "other.yaml").write_text("root: ${nowhere.at.all}\nimage_size: 4")
    with pytest.raises(UserError, match="refers to a key that does not exist"):
        compose(["data=other"], tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data=audio data.root=x views=sym", "views=sym asks for data.image_size, which data=audio does not have"),
        ("data=tones views=multicrop", "views=multicrop asks for data.image_size, which data=tones does not have"),
        ("data=shapes views=audio", "views=audio asks for data.length, which data=shapes does not have"),
    ],
)
def test_views_that_are_not_of_the_data_are_named(words: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        compose(words.split())


def test_a_part_left_out_is_checked_too() -> None:
    config = compose(["~method.projector"])
    with pytest.raises(UserError, match="needs 'projector'"):
        check(config)


def test_a_mistake_is_answered_before_torch_is_loaded(here: Path) -> None:
    """As a user sees it: exit status 2, one line, no traceback, and quickly (a wide margin: this is no benchmark)."""
    program = """
import sys
from ssl_lightning.__main__ import main
codes = [main([wrong]) for wrong in ("metod=moco", "data.batch_size=big", "+method.projectr=1")]
assert codes == [2, 2, 2], codes
assert not {"torch", "lightning", "torchvision", "timm", "wandb"} & set(sys.modules)
"""
    start = time.monotonic()
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 3
    assert time.monotonic() - start < 30


def test_a_wrong_key_composes_once_and_imports_little(here: Path) -> None:
    program = """
import sys
from ssl_lightning.cli import compose
from ssl_lightning.__main__ import main
times, hydra = [], compose.hydra_compose
compose.hydra_compose = lambda *a, **k: times.append(a) or hydra(*a, **k)
assert main(["~callbacks.collapse", "data.batch_size=8", "method.foo=1"]) == 2
assert len(times) == 1, times
print(sorted(n for n in sys.modules if n.startswith("ssl_lightning")))
"""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "error: there is no 'method.foo' in this config. Did you mean 'method.loss'?\n"
    later = ("cli.run", "cli.inherit", "config.instantiate", "runs.folder", "core.crew")
    assert [name for name in later if f"'ssl_lightning.{name}'" in done.stdout] == []
    assert "'ssl_lightning.cli.compose'" in done.stdout


def without(package: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a Python that lacks a package."""
    program = """
import importlib.machinery, sys
look = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, *more: None if name == sys.argv[1] else look(name, *more)
from ssl_lightning.__main__ import main
sys.exit(main(sys.argv[2:]))
"""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", program, package, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("package", "module", "words"),
    [
        ("hydra-core", "hydra", []),
        ("pyyaml", "yaml", ["-m", "seed=1,2"]),
        ("lightning", "lightning", [*BASE, "stage=standin"]),
        ("torch", "torch", [*BASE, "stage=standin"]),
        ("rich", "rich", [*BASE, "stage=standin"]),
    ],
)
def test_a_dependency_that_is_absent_is_one_line(package: str, module: str, words: list[str], here: Path) -> None:
    done = without(module, *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"error: the package {package} is not installed in this Python ({sys.executable}); ")
    assert "make setup" in done.stderr
    assert list(here.rglob("*")) == []


def test_a_module_of_one_s_own_that_is_absent_keeps_its_traceback() -> None:
    assert missing.line(ModuleNotFoundError("no module", name="mine")) is None
    assert missing.line(ModuleNotFoundError("no module", name="torch.nowhere")) is None


def test_every_dependency_is_known_by_the_name_it_is_imported_by() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert {re.split("[<>=]", line)[0] for line in project["dependencies"]} == missing.IMPORTED.keys()
    assert all(importlib.util.find_spec(module) for module in missing.IMPORTED.values())


@pytest.mark.parametrize("file", ["__init__", "__main__"])
def test_an_older_python_can_read_what_tells_it_so(file: str) -> None:
    ast.parse((Path(__file__).parents[1] / "ssl_lightning" / f"{file}.py").read_text(), feature_version=(3, 7))


def test_an_older_python_is_told_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "ssl_lightning" / "__main__.py").read_text()
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit) as left:
        exec(compile(text.partition("from ssl_lightning")[0], "main", "exec"), {})
    assert left.value.code == 2


def test_python_dash_m_from_another_folder(here: Path) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "ssl_lightning", "metod=moco"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no 'metod' in this config. Did you mean 'method'?\n"


def test_the_package_imports_nothing_until_asked() -> None:
    import ssl_lightning

    assert ssl_lightning.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssl_lightning.nothing
    assert callable(ssl_lightning.load_backbone)
