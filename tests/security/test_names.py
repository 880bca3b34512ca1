"""What a config may name: ways to run code through a `_target_`, none of which may work, and honest names, which do."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

import tests.security.evil_package  # noqa: F401  (importing it late would leave caches of its imports in the trap)
from ssl_lightning.__main__ import main
from ssl_lightning.cli import run as building
from ssl_lightning.cli.trainers import TrainerFactory
from ssl_lightning.config.allowed import PLACES
from ssl_lightning.config.instantiate import check, check_arguments, instantiate
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.folder import RunFolder
from tests.security.attacks_names import CALLBACKS, EXPERIMENTS, HONEST, LOGGERS, NAMES, node
from tests.security.trap import Attack, Trap, build


def one_line(error: UserError) -> str:
    assert "\n" not in str(error)
    assert len(str(error)) < 1200
    return str(error)


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trap:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Trap(tmp_path)


@pytest.mark.parametrize("attack", NAMES, ids=lambda attack: attack.name)
def test_a_config_node_runs_nothing(attack: Attack, trap: Trap) -> None:
    before = sorted(trap.folder.rglob("*"))
    with pytest.raises(UserError) as refusal:
        build(trap, attack)
    assert attack.refused in one_line(refusal.value)
    if not attack.name.startswith("timm: "):  # its arguments are looked at by our builder
        with pytest.raises(UserError) as early:
            check(trap.filled(attack.payload), attack.trusted, "method.loss")
        one_line(early.value)
    assert trap.sprung == []
    assert sorted(trap.folder.rglob("*")) == before


def test_there_are_enough_attacks() -> None:
    assert len(NAMES) == len({attack.name for attack in NAMES}) > 60


# ---- a whole command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", EXPERIMENTS, ids=lambda attack: attack.name)
def test_an_experiment_runs_nothing(attack: Attack, trap: Trap, capsys: pytest.CaptureFixture[str]) -> None:
    file = trap.folder / "conf" / "experiment" / "evil.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\n" + yaml.safe_dump(trap.filled(attack.payload)))
    assert main(["--config-dir", str(trap.folder / "conf"), "experiment=evil"]) == 2
    err = capsys.readouterr().err
    assert attack.refused in err
    assert err.count("\n") == 1
    assert trap.sprung == []
    assert not (trap.folder / "runs").exists()


# ---- honest names --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # Lightning's own remarks on FSDP's default and the like
@pytest.mark.parametrize(("where", "config", "trusted"), HONEST, ids=[row[1]["_target_"] for row in HONEST])
def test_honest_names_are_built(where: str, config: dict[str, Any], trusted: tuple[str, ...]) -> None:
    group, _, deeper = where.partition(".")
    places = {"takes": PLACES[group]} if not deeper or group in ("callbacks", "logger") else {}
    check(config, trusted, where, **places)
    assert instantiate(config, trusted, **places) is not None


def test_what_lightning_writes_lies_in_the_runs_folder(tmp_path: Path) -> None:
    profiler = node("lightning.pytorch.profilers.SimpleProfiler", dirpath="times", filename="x")
    config = {
        "trainer": {"profiler": profiler, "accelerator": "cpu"},
        "callbacks": {"keep": node(f"{CALLBACKS}.ModelCheckpoint", dirpath="kept")},
        "logger": {"csv": node(f"{LOGGERS}.CSVLogger"), "more": node(f"{LOGGERS}.CSVLogger", save_dir="more")},
    }
    check_arguments("lightning.Trainer", config["trainer"], (), "trainer")
    trainer: Trainer = TrainerFactory(config, tmp_path)()
    assert Path(str(trainer.profiler.dirpath)) == tmp_path / "times"
    assert Path(str(trainer.checkpoint_callback.dirpath)) == tmp_path / "kept"
    assert [Path(str(logger.save_dir)) for logger in trainer.loggers] == [tmp_path, tmp_path / "more"]


OWN = "tests.security.own_package"
FOLDER_OF_ONES_OWN = {
    "method/mine": node(f"{OWN}.Method", loss=node(f"{OWN}.Loss", power=2), settings=node(f"{OWN}.Settings", a=1)),
    "backbone/mine": node(f"{OWN}.Net", width=4),
    "stage/mine": node(f"{OWN}.stage"),
    "callbacks/mine": {"watch": node(f"{OWN}.Watch", path="/anywhere")},
}


def test_a_users_own_classes_and_stage(trap: Trap) -> None:
    """A package of one's own goes through the whole check: method, backbone, loss, settings, callback, stage."""
    for name, config in FOLDER_OF_ONES_OWN.items():
        file = trap.folder / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(yaml.safe_dump(config))
    words = [f"{name.partition('/')[0]}=mine" for name in FOLDER_OF_ONES_OWN]
    config = building.compose([*words, "trusted_packages=[tests]"], trap.folder / "conf")
    building.check(config)
    folder = RunFolder(trap.folder / "run")
    method = building.Parts(config, folder).method
    assert type(method).__module__ == OWN
    assert method.settings.a == 1
    assert method.backbone(torch.ones(2, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(UserError, match=r"trusted_packages=\[tests\]"):
        building.check(building.compose(words, trap.folder / "conf"))
