"""`--help` and the flags: quick, and true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_lightning.__main__ import main
from ssl_lightning.cli import arguments, help
from ssl_lightning.cli.run import check, compose
from ssl_lightning.core.errors import UserError

HEAVY = {"torch", "hydra", "omegaconf", "lightning", "numpy", "rich", "timm", "wandb"}


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_nothing_heavy_is_imported(flag: str) -> None:
    lines = ["import sys", "from ssl_lightning.__main__ import main", f"main([{flag!r}])"]
    heavy = HEAVY | ({"importlib.metadata", "yaml"} if flag == "--help" else set())
    program = "\n".join([*lines, f"print({heavy} & set(sys.modules))"])
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert out.endswith("set()\n")


def test_help_names_every_group_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    out = capsys.readouterr().out
    for file in help.conf_dir().rglob("*.yaml"):
        if file.parent != help.conf_dir() and not file.stem.startswith("_"):
            assert re.search(rf"\b{re.escape(file.stem)}\b", out), file
    assert len([line for line in out.splitlines() if line.startswith("  python -m ssl_lightning")]) == 1 + 5


def test_options_of_a_folder_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text("a: 1")
    assert "mine" in help.options("backbone", (tmp_path,))
    assert main(["--config-dir", str(tmp_path), "--help"]) == 0
    assert " mine" in capsys.readouterr().out


@pytest.mark.parametrize("example", help.EXAMPLES, ids=[meaning for _, meaning in help.EXAMPLES])
def test_examples_are_true(example: tuple[str, str]) -> None:
    asked = arguments.parse(example[0].split())
    overrides = [override.split(",")[0] for override in asked.overrides]  # a sweep's first job
    check(compose(overrides))


def test_flags() -> None:
    asked = arguments.parse(["-m", "a=1,2", "--cfg", "job", "--resolve", "~callbacks.probe", "+b=-1"])
    assert (asked.multirun, asked.cfg, asked.resolve) == (True, True, True)
    assert asked.overrides == ["a=1,2", "~callbacks.probe", "+b=-1"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--hlep"], "Did you mean '--help'"),
        (["--multi-run"], "Did you mean '--multirun'"),
        (["-z"], "no flag '-z'"),
        (["moco"], "key=value"),
        (["--cfg", "all"], "--cfg job"),
        (["--cfg"], "--cfg job"),
        (["--config-dir", "nowhere"], "'nowhere' is not a folder"),
        (["--config-dir"], "takes a folder"),
    ],
)
def test_wrong_flags(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError):
        arguments.parse(argv)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
