"""The Python entry: what a call means, what it raises, and that the process is left as it was found."""

import asyncio
import importlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import ssl_lightning as sl
from ssl_lightning.cli import call, session
from ssl_lightning.cli.compose import compose
from tests.own_stages import state

CONF = Path(__file__).parent / "conf_standin"
OWN: dict[str, Any] = {"config_dir": CONF, "trusted": ["tests"]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def standin(*overrides: str, target: str = "", **given: Any) -> sl.Run:
    """A run whose stage trains nothing."""
    words = [f"stage._target_=tests.own_stages.{target}", "~stage.boost", "~stage.fail"] if target else []
    base = ["views=blank", *words, *overrides]
    Path("weights.pt").touch()
    return sl.evaluate("weights.pt", "standin", "blank", overrides=base, **(OWN | {"name": "x"} | given))


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line that the next call amounts to; nothing is run."""
    found: list[str] = []

    def perform(words: list[str], *_: Any) -> Path:
        found[:] = words
        return Path("runs/x")

    monkeypatch.setattr(session, "perform", perform)
    return found


# ---- arguments to words --------------------------------------------------------------------------------------------


def test_arguments_are_words_of_the_command_line(words: list[str]) -> None:
    sl.pretrain()
    assert words == []
    sl.pretrain(
        "cifar10", method="dino", epochs=50, batch_size=64, backbone="vit_tiny", seed=3, ckpt="timm:resnet18",
        name="mine", runs_dir=Path("there"), logger=["csv", "wandb"], resume="never", trusted="mine",
        overrides=["optimizer.base_lr=0.1"],
    )  # fmt: skip
    assert words == [
        "name=mine", "runs_dir=there", "seed=3", "ckpt=timm:resnet18", "resume=never", "method=dino",
        "backbone=vit_tiny", "logger=[csv,wandb]", "data=cifar10", "data.batch_size=64", "trainer.max_epochs=50",
        "trusted_packages=[mine]", "optimizer.base_lr=0.1",
    ]  # fmt: skip
    sl.evaluate("runs/a", "linear")
    assert words == ["stage=linear", "ckpt=runs/a"]
    sl.finetune(sl.Run("runs/a", ["mine"]), labels_per_class=5, epochs=2, task="regress")
    assert words == [
        "stage=finetune", "ckpt=runs/a", "task=regress", "stage.epochs=2", "data.labels_per_class=5",
        "trusted_packages=[mine]",
    ]  # fmt: skip


NAMES = ["my photos", "a,b", "größe 日本", "it's", '"quoted"', "null", "true", "${seed}", "a=b", "[1]", "x#y", "007"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_read_as_it_is(name: str, here: Path, words: list[str]) -> None:
    folder = here / name
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    for given in (name, folder):
        sl.pretrain(given, runs_dir=name, name="x")
        config = compose(words)
        assert config.choices["data"] == "folder"
        assert config.values["data"]["root"] == str(given)
        assert config.path == Path(name) / "x"


def test_what_data_is_meant(here: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, suffix in (("sounds", ".flac"), ("pictures", ".JPG"), ("both", ".wav"), ("arrays", ".npy")):
        (here / folder / "deep" / "er").mkdir(parents=True)
        for i in range(2):
            (here / folder / "deep" / "er" / f"{i}{suffix}").touch()
    for i in range(3):
        (here / "both" / f"{i}.png").touch()
    for data, kind in (("sounds", "audio"), ("pictures", "folder"), ("both", "folder"), ("arrays", "folder")):
        assert call.data_words(data) == {"data": kind, "data.root": data}
    np.savez("some.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    assert call.data_words("some.npz") == {"data": "array", "data.root": "some.npz"}
    monkeypatch.setenv("HOME", str(here))
    assert call.data_words("~/sounds") == {"data": "audio", "data.root": "~/sounds"}
    assert call.data_words("blank", CONF) == {"data": "blank"}  # of one's own
    assert call.data_words(None) == {}


def test_a_folder_goes_before_a_data_set_of_its_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "shapes").mkdir()
    (here / "shapes" / "a.png").touch()
    assert call.data_words("shapes") == {"data": "folder", "data.root": "shapes"}
    assert "overrides=['data=shapes']" in capsys.readouterr().out


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"data": "cifar1O"}, "no data set of this name. Did you mean 'cifar10'?"),
    ({"data": "potos"}, "Did you mean 'photos'?"),
    ({"data": "here/nothing"}, "there is no folder or file here/nothing"),
    ({"data": "zzz"}, "There are: array, "),
    ({"data": "photos"}, "photos holds no image (.jpg or .png ...) and no recording"),
    ({"data": "one.txt"}, "one.txt is one file"),
    ({"data": np.zeros(3)}, "data is a ndarray; give a path or the name of a data set; write arrays to a file"),
    ({"method": "byoll"}, "there is no method=byoll. Did you mean 'byol'?"),
    ({"method": torch.nn.Identity()}, "method is an Identity; give a name"),
    ({"epochs": "many"}, "trainer.max_epochs wants an integer or null, not 'many'"),
    ({"batch_size": 1.5}, "data.batch_size wants an integer, not 1.5"),
    ({"resume": "sometimes"}, "resume wants one of auto, must, never"),
    ({"overrides": "seed=1"}, "overrides is a list of strings, not one string"),
    ({"overrides": [3]}, "overrides holds 3; give strings"),
    ({"overrides": ["sed=1"]}, "there is no 'sed' in this config. Did you mean 'seed'?"),
    ({"overrides": ["method=byol"], "method": "dino"}, "method is given twice"),
    ({"overrides": ["-m"]}, "a sweep is for the command line"),
    ({"overrides": ["--help"]}, "--help, --version and --cfg do not work here"),
    ({"overrides": ["--halp"]}, "there is no flag '--halp'"),
    ({"overrides": ["trainer.devices=2"]}, "start your script with torchrun --nproc-per-node=2"),
    ({"overrides": ["trainer=ddp_cpu"]}, "start your script with torchrun --nproc-per-node=2"),
    ({"overrides": ["trainer.num_nodes=2"]}, "--nnodes=2"),
    ({"config_dir": "nowhere"}, "'nowhere' is not a folder"),
]


@pytest.mark.parametrize(
    ("formats", "more"), [("[csv]", "[npz,csv]"), ("[parquet,csv]", "[npz,parquet,csv]"), ("[]", "[npz]")]
)
def test_an_embedding_without_arrays_is_refused_before_anything_is_computed(formats: str, more: str) -> None:
    with pytest.raises(sl.UserError, match=re.escape(f"give overrides=['stage.formats={more}']")):
        sl.embed("runs/absent", overrides=[f"stage.formats={formats}"])
    call.need_npz(["stage.formats=[csv,npz]", "seed=1"])


@pytest.mark.parametrize(("given", "why"), WRONG, ids=[why for _, why in WRONG])
def test_a_mistake_is_one_line_and_leaves_nothing(given: dict[str, Any], why: str, here: Path) -> None:
    (here / "photos").mkdir()
    (here / "one.txt").touch()
    with pytest.raises(sl.UserError) as error:
        sl.pretrain(**given)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in here.iterdir()) == ["one.txt", "photos"]


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_the_same_call_again_returns_at_once(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = standin("seed=3")
    assert first.path == here / "runs" / "x"
    assert first.results["seed"] == 3
    assert repr(first).startswith("Run('runs/x'")
    assert "run: runs/x" in capfd.readouterr().out
    again = standin("seed=3", progress=False)
    assert again.results == first.results
    assert (first.path / "calls.txt").read_text().count("\n") == 1
    assert "".join(capfd.readouterr()) == ""
    with pytest.raises(sl.UserError, match="seed: 3 -> 4"):
        standin("seed=4")
    assert standin("seed=4", resume="never").results["seed"] == 4


def test_quiet_is_for_the_thread_that_asked(capfd: pytest.CaptureFixture[str]) -> None:
    before = warnings.showwarning
    with pytest.warns(UserWarning, match="of Python"):
        standin(target="prints", progress=False)
    assert tuple(capfd.readouterr()) == ("from elsewhere\n", "")
    with pytest.warns(UserWarning, match="of Python"):
        standin(target="prints", name="y")
    told = capfd.readouterr()
    assert "from the run" in told.out
    assert "on stderr" in told.err
    assert warnings.showwarning is before


def test_paths_are_of_the_folder_that_was_current(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = standin()
    (here / "sub").mkdir()
    monkeypatch.chdir(here / "sub")
    assert run.results["knn_top1"] == 0.5
    assert run.name == str(here / "runs" / "x")
    assert sl.load_run("../runs/x").name == "../runs/x"


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(sl.UserError, match="package timm is not installed") as error:
        standin(target="lacks")
    assert "\n" not in str(error.value)


def test_a_bug_keeps_its_own_exception() -> None:
    with pytest.raises(RuntimeError, match="this job fails"):
        standin("stage.fail=true")


def test_secrets_in_a_mistake_are_masked() -> None:
    with pytest.raises(sl.UserError) as error:
        sl.pretrain(overrides=["+logger.csv.api_key=hunter2hunter2", "method=hunter2hunter2"])
    assert "hunter2" not in str(error.value)


def own_stage(module: str, name: str, *words: str) -> sl.Run:
    Path("weights.pt").touch()
    target = ["views=blank", f"stage._target_={module}.first", "~stage.boost", "~stage.fail", *words]
    given: dict[str, Any] = {"overrides": target, "config_dir": CONF, "trusted": ["tests", module]}
    return sl.evaluate("weights.pt", "standin", "blank", name=name, **given)


def test_code_of_ones_own_may_come_or_change_between_two_calls(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "from typing import Any\n\n\ndef first(run: Any, "
    with pytest.raises(sl.UserError, match="stages_to_come"):
        own_stage("stages_to_come", "x")
    for module in ("stages_to_come", "stages_of_mine"):
        (here / f"{module}.py").write_text(f"{head}width: int = 1) -> dict[str, Any]:\n    return {{'width': width}}\n")
    monkeypatch.syspath_prepend(here)
    assert own_stage("stages_to_come", "x").results["width"] == 1
    assert own_stage("stages_of_mine", "y").results["width"] == 1
    with pytest.raises(sl.UserError, match="depth"):
        own_stage("stages_of_mine", "z", "+stage.depth=2")
    text = f"{head}width: int = 1, depth: int = 1) -> dict[str, Any]:\n    return {{'depth': depth}}\n"
    (here / "stages_of_mine.py").write_text(text)
    os.utime(here / "stages_of_mine.py", (0, 0))  # another time, whatever the clock's step
    importlib.reload(sys.modules["stages_of_mine"])
    assert own_stage("stages_of_mine", "z", "+stage.depth=2").results["depth"] == 2


# ---- the process is left as it was ---------------------------------------------------------------------------------


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A process with settings of its own, none of them a default."""
    monkeypatch.setenv("MINE", "1")
    before = [torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()]
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    torch.set_default_dtype(torch.float64)
    logging.getLogger("lightning.pytorch").setLevel(logging.DEBUG)
    torch.manual_seed(77)
    found = state()
    yield found
    left = state()
    torch.set_default_dtype(before[0])
    torch.set_num_threads(before[1])
    torch.set_rng_state(before[2])
    signal.signal(signal.SIGTERM, handler)
    logging.getLogger("lightning.pytorch").setLevel(logging.NOTSET)
    assert [key for key in found if found[key] != left[key]] == []


@pytest.mark.parametrize("how", ["ends", "fails", "refused"])
def test_a_run_leaves_the_process_as_it_was(how: str, mine: dict[str, Any]) -> None:
    for name in ("x", "y"):  # twice in one process
        error = {"fails": pytest.raises(RuntimeError), "refused": pytest.raises(sl.UserError)}.get(how, nullcontext())
        with error:
            standin(f"+stage.how={how}", target="spoil", name=name)
        left = state()
        assert [key for key in mine if left[key] != mine[key]] == []


def test_a_run_that_ends_in_another_folder(here: Path) -> None:
    with pytest.raises(RuntimeError):
        standin(target="leaves")
    assert Path.cwd() == here


def test_a_mistake_in_a_word_leaves_the_process_as_it_was(mine: dict[str, Any]) -> None:
    with pytest.raises(sl.UserError):
        sl.pretrain(method="byoll")


def test_a_run_begins_as_in_a_fresh_process(mine: dict[str, Any]) -> None:
    plain = standin(target="exact", name="a").results
    torch.rand(7)
    with torch.no_grad(), torch.inference_mode():
        again = standin(target="exact", name="b").results
    assert plain["dtype"] == "torch.float32"
    assert again["grad"] is True
    assert again["draws"] == plain["draws"]
    torch.manual_seed(77)


def test_in_a_thread_and_with_a_loop_running(mine: dict[str, Any]) -> None:
    found: list[sl.Run] = []
    thread = threading.Thread(target=lambda: found.append(standin(target="spoil")))
    thread.start()
    thread.join()
    assert found[0].results["knn_top1"] == 0.5

    async def cell() -> sl.Run:
        return standin(name="y")

    assert asyncio.run(cell()).results["knn_top1"] == 0.5


def test_one_run_at_a_time() -> None:
    with session._alone(), pytest.raises(sl.UserError, match="already busy with a run"):
        standin()
    standin()


def test_a_program_of_hydra_keeps_its_own() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        standin()
        assert GlobalHydra.instance().hydra is before


# ---- signals -------------------------------------------------------------------------------------------------------


STOPPED = ["views=blank", "stage._target_=tests.standin.stopped", "~stage.boost", "~stage.fail", "+stage.number=15"]


def test_ctrl_c_is_a_keyboard_interrupt() -> None:
    before = signal.getsignal(signal.SIGINT)
    words = [*STOPPED[:-1], "+stage.number=2"]
    with pytest.raises(
        KeyboardInterrupt, match=r"interrupted; nothing was saved yet\. Make the same call again to continue"
    ):
        sl.evaluate("x", "standin", "blank", name="x", overrides=words, **OWN)
    assert signal.getsignal(signal.SIGINT) is before
    assert standin(name="y").results["knn_top1"] == 0.5  # and the next call works


def test_another_signal_reaches_the_handler_that_was_there() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            sl.evaluate("x", "standin", "blank", name="x", overrides=STOPPED, **OWN)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


def test_where_nobody_handles_a_signal_it_ends_the_process(here: Path) -> None:
    code = f"""
import ssl_lightning as sl
sl.evaluate("x", "standin", "blank", name="x", overrides={STOPPED}, config_dir={str(CONF)!r}, trusted="tests")
"""
    env = {**os.environ, "PYTHONPATH": str(CONF.parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == -signal.SIGTERM
    assert "Make the same call again to continue" in done.stderr
    assert "Traceback" not in done.stderr
