"""Every command of the README is composed and checked, and those whose data is at hand are run, shrunk, in order."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import wandb
from PIL import Image

from ssl_lightning import __main__, build
from ssl_lightning.arguments import parse
from tests.methods.harness import needs_vit

README = (Path(__file__).parents[1] / "README.md").read_text()
BASH = "\n".join(re.findall(r"^```bash\n(.*?)^```", README, flags=re.S | re.M))
COMMANDS = [
    shlex.split(line, comments=True)[3:] for line in BASH.splitlines() if line.startswith("python -m ssl_lightning")
]
RUNNABLE = [words for words in COMMANDS if not any(word.startswith(("data=cifar10", "experiment=")) for word in words)]


def shrunk(words: list[str]) -> list[str]:
    """The command with little data and few epochs; what the README itself sets is left as it stands."""
    asked = {word.lstrip("+~").split("=")[0] for word in words}
    extra = ["data.batch_size=16"]
    if "data" not in asked:
        extra += ["data.size=96", "data.test_size=48"]
    if "ckpt" not in asked:
        method = next((word.removeprefix("method=") for word in words if word.startswith("method=")), "simclr")
        extra += ["backbone.dim=16", "backbone.heads=2"] if needs_vit(method) else ["backbone.width=8"]
        extra += ["stage.judge=true", "trainer.max_epochs=1"]
    if "stage=finetune" in words:
        extra += ["stage.epochs=1"]
    return [*words, *(word for word in extra if word.split("=")[0] not in asked)]


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_composes(words: list[str]) -> None:
    asked = parse(words)
    if asked.help:
        return
    first = [re.sub(r"=([^\[,]+),.*", r"=\1", override) for override in asked.overrides]  # a sweep's first job
    build.check(build.compose(first if asked.multirun else asked.overrides))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning on runs as short as these
def test_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i in range(48):  # the reader's own photos
        image = Image.fromarray(torch.randint(0, 256, (60 + i, 90, 3), dtype=torch.uint8).numpy())
        (tmp_path / "photos" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / f"class{i % 2}" / f"{i}.jpg")
    for words in RUNNABLE:
        if "-m" not in words:  # a sweep starts processes of its own; tests/test_sweep.py runs some
            monkeypatch.setattr("sys.argv", ["ssl_lightning", *words])
            assert __main__.main(shrunk(words)) == 0, " ".join(words)
    wandb.finish()  # in a process of its own the end of the process does that
    assert (tmp_path / "runs" / "simclr-shapes" / "results.json").is_file()


def test_the_two_lines_are_as_written() -> None:
    assert 'backbone = load_backbone("runs/simclr-shapes")' in README
