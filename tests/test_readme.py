"""Every command of README and docs/ is composed and checked; those whose data is built in are run, shrunk, in order
(those of docs/methods/ are only composed: tests/methods/ trains each method).

A block of Python is run as it stands, where a run of the demo lies, unless its first line begins with `# fragment`:
that is only parsed. A block that begins with `# my_...` is that file. Pages with a test of their own are in OWN_TEST.
"""

import ast
import re
import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from PIL import Image
from torch.utils.data import DataLoader

from ssl_lightning import __main__
from ssl_lightning.cli import run as build
from ssl_lightning.cli.arguments import parse
from ssl_lightning.models.vit import ViT
from tests.methods.harness import needs_vit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PATHS = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path.stem != "log")]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PATHS}
OWN_TEST = ("docs/weights.md", "docs/python.md")  # below, and tests/test_api*.py


def commands(page: str) -> list[list[str]]:
    bash = "\n".join(re.findall(r"^```bash\n(.*?)^```", page, flags=re.S | re.M))
    return [shlex.split(line, comments=True)[3:] for line in bash.splitlines() if line.startswith("python -m ssl_l")]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, flags=re.S | re.M)


COMMANDS = list({tuple(words): words for page in PAGES.values() for words in commands(page)}.values())
ELSEWHERE = ("data=cifar10", "experiment=", "data.root=DIR/")  # on data that the reader has to get
RUNNABLE = {  # page -> its commands in order, but sweeps (tests/cli/test_sweep.py) and methods (tests/methods/)
    path: [words for words in commands(page) if not any(word == "-m" or word.startswith(ELSEWHERE) for word in words)]
    for path, page in PAGES.items()
    if not path.startswith("docs/methods/")
}
RUNNABLE = {path: words for path, words in RUNNABLE.items() if words}


def shrunk(words: list[str], judge: bool = False) -> list[str]:
    """The command with little data and one epoch, evaluated at the end or not; what else it sets is left."""
    asked = {word.lstrip("+~").split("=")[0] for word in words}
    trains = "stage" not in asked
    if "stage=doctor" in words:
        return [*words, "stage.seconds=1"]
    if "stage=report" in words:
        return [*words, "stage.maps=[]"]
    if any(word in ("stage=export", "stage=compare", "stage=transfer") for word in words):  # none, or data of its own
        return words
    extra = ["data.batch_size=16", "data.num_workers=0"]  # a worker takes longer to start than to read these
    if trains and "data" not in asked:  # a stage takes the data of its run
        extra += ["data.size=96", "data.test_size=48"]
    if not {"ckpt", "backbone"} & asked:
        method = next((word.removeprefix("method=") for word in words if word.startswith("method=")), "simclr")
        extra += ["backbone.dim=16", "backbone.heads=2"] if needs_vit(method) else ["backbone.width=8"]
    extra = [word for word in extra if word.split("=")[0] not in asked]
    if (trains and "trainer.max_epochs" not in asked) or int(_value(words, "trainer.max_epochs")) > 3:
        extra += ["trainer.max_epochs=1"]
    if trains:
        extra += [f"stage.judge={str(judge).lower()}"]
    if "stage=label_curve" in words:
        words = [word for word in words if not word.startswith("stage.finetune.")]
        extra += ["stage.finetune.epochs=1", "stage.finetune.warmup_epochs=0", "stage.steps=0", "stage.probe.epochs=1"]
    return [*words, *extra, *(["stage.epochs=1"] if set(TUNED) & set(words) else [])]


TUNED = ("stage=finetune", "stage=detect", "stage=segment")


def _value(words: list[str], key: str) -> str:
    return next((word.partition("=")[2] for word in words if word.startswith(f"{key}=")), "0")


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 100
    assert sum(map(len, RUNNABLE.values())) >= 30


@pytest.mark.parametrize("path", PAGES)
def test_lines_of_bash_are_ours_or_of_known_tools(path: str) -> None:
    """What the tests do not look at is a line that nobody has tried."""
    for block in re.findall(r"^```bash\n(.*?)^```", PAGES[path], flags=re.S | re.M):
        for line in filter(None, map(str.strip, block.splitlines())):
            assert line.startswith(("python -m ssl_lightning", "python -m benchmarks", "source ", "#")), line


@pytest.mark.parametrize("path", PAGES)
def test_python_parses(path: str) -> None:
    for block in blocks(PAGES[path]):
        ast.parse(block)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning on runs as short as these
def test_python_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["ssl_lightning"])
    assert __main__.main(shrunk([], judge=True)) == 0
    found = [(path, block) for path, page in PAGES.items() if path not in OWN_TEST for block in blocks(page)]
    run = [(path, block) for path, block in found if not block.startswith(("# fragment", "# my_"))]
    assert len(run) >= 2
    for path, block in run:
        exec(compile(shortened(block), path, "exec"), {"__name__": "__reader__"})


SHORTER = {
    "epochs=50": "epochs=1, batch_size=16, overrides=['data.image_size=32', 'data.num_workers=0', 'backbone.width=8', "
    "'method.projector.out_dim=64', 'stage.judge=false']",
    "sl.finetune(run)": "sl.finetune(run, epochs=1, batch_size=16, overrides=['data.num_workers=0'])",
}


def shortened(block: str) -> str:
    """The README's six lines in seconds; that each is there is asked below."""
    for long, short in SHORTER.items():
        block = block.replace(long, short)
    return block


def test_the_six_lines_are_as_they_are_shortened() -> None:
    assert all(long in README for long in SHORTER)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader stands: with photos, and with the files that README shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for i in range(48):
        image = Image.fromarray(torch.randint(0, 256, (60 + i, 90, 3), dtype=torch.uint8).numpy())
        (tmp_path / "photos" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / f"class{i % 2}" / f"{i}.jpg")
    for name, text in re.findall(r"^```\w+\n# (my_\S+)\n(.*?)^```", README, flags=re.S | re.M):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_composes(words: list[str], folder: Path) -> None:
    asked = parse(words)
    if asked.help:
        return
    first = [re.sub(r"=([^\[,]+),.*", r"=\1", override) for override in asked.overrides]  # a sweep's first job
    build.check(build.compose(first if asked.multirun else asked.overrides, asked.config_dir))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning on runs as short as these
@pytest.mark.timeout(900)  # some are ten commands long
@pytest.mark.parametrize("path", [p if p == "README.md" else pytest.param(p, marks=pytest.mark.long) for p in RUNNABLE])
def test_commands_run_in_order(path: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page can be followed from its first line to its last, in an empty folder with photos."""
    for words in RUNNABLE[path]:
        monkeypatch.setattr("sys.argv", ["ssl_lightning", *words])
        assert __main__.main(shrunk(words, judge=path == "README.md")) == 0, " ".join(words)
    wandb.finish()  # in a process of its own the end of the process does that
    assert list((folder / "runs").glob("*/results.json"))


def test_readme_is_short() -> None:
    """What is not code: 700 words."""
    text = re.sub(r"^```.*?^```|^    .*?$", "", README, flags=re.S | re.M)
    assert len(text.split()) <= 700


@pytest.mark.filterwarnings("ignore")  # of Lightning on runs as short as these
def test_the_code_of_docs_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/weights.md: a public file into our ViT, the backbone of a run, a method in one's own Trainer."""
    weights, own, *_, trainer = blocks(PAGES["docs/weights.md"])
    words = ["name=simclr-photos", "data=folder", "data.root=photos", "data.image_size=32"]
    monkeypatch.setattr("sys.argv", ["ssl_lightning", *words])
    assert __main__.main(shrunk(words)) == 0
    shutil.copy(next((folder / "photos").rglob("*.jpg")), "photo.jpg")
    read: dict[str, Any] = {}
    exec(own, read)
    assert read["x"].shape == (3, 32, 32)
    assert len(read["features"]) == 48
    net = ViT(image_size=518, patch_size=14, dim=384, heads=6, registers=4, layer_scale=1e-5)
    state = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
    torch.save(state, "dinov2_vits14_reg4_pretrain.pth")
    found: dict[str, Any] = {}
    exec(weights, found)
    assert torch.equal(found["backbone"].blocks[3].attn.qkv.weight, net.blocks[3].attn.qkv.weight)
    images = torch.rand(8, 2, 3, 32, 32)
    pairs = [([image[0], image[1]], 0) for image in images]
    quiet = "max_epochs=1, accelerator='cpu', logger=False, enable_progress_bar=False, log_every_n_steps=1"
    given: dict[str, Any] = {"loader": DataLoader(pairs, batch_size=4)}  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's on so few workers
        exec(trainer.replace("max_epochs=10", quiet), given)
    assert given["method"].global_step == 2
