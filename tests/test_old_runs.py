"""Runs of an earlier version are still runs: they load, are evaluated, fine-tuned and continued.

`fixtures/runs` was made in November 2026 by the commands in `COMMANDS`, by the version before its files moved; what a
test does not need was left out (previous checkpoints, the trainings inside stage=finetune, of moco all that is written
at its end). Never make these folders again: they are there to be old.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ssl_lightning import load_backbone
from ssl_lightning.__main__ import main
from ssl_lightning.config import aliases

RUNS = Path(__file__).parent / "fixtures" / "runs"
SMALL = "data.size=64 data.test_size=32 data.image_size=16 data.batch_size=16 trainer.max_epochs=2 "
SMALL += "trainer.accelerator=cpu stage.judge=false ~callbacks.view_mosaic ~callbacks.method_pictures"
NET = "backbone=convnet_small backbone.width=4"
VIT = "backbone=vit_tiny backbone.patch_size=4 backbone.dim=16 backbone.depth=2 backbone.heads=2"
DECODER = "method.decoder.dim=16 method.decoder.depth=1 method.decoder.heads=2"
DINO = "method.projector.hidden_dim=16 method.projector.bottleneck_dim=8 method.projector.out_dim=16"
HEAD = "method.projector.hidden_dim=16 method.projector.out_dim=8"
COMMANDS = {
    "simclr-shapes": f"method=simclr {NET} data=shapes {SMALL} {HEAD}",
    "mae-shapes": f"method=mae {VIT} data=shapes {SMALL} {DECODER}",
    "dino-shapes": f"method=dino {NET} data=shapes {SMALL} {DINO}",
    "moco-shapes": f"method=moco {NET} data=shapes {SMALL} {HEAD} method.queue_size=32",
    "simclr-shapes/finetune-shapes": "stage=finetune ckpt=runs/simclr-shapes stage.epochs=2 stage.batch_size=16 "
    "trainer.accelerator=cpu",
    "simclr-shapes/linear-shapes": "stage=linear ckpt=runs/simclr-shapes stage.probe.epochs=2 trainer.accelerator=cpu",
    "mae-shapes/export-shapes": "stage=export ckpt=runs/mae-shapes",
}
OFTEN = "trainer.log_every_n_steps=1"  # Lightning warns of more than there are steps
PRETRAINED = ("simclr-shapes", "mae-shapes", "dino-shapes")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds copies of the old runs, where the commands were typed."""
    shutil.copytree(RUNS, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("name", [*PRETRAINED, "mae-shapes/export-shapes"])
def test_a_backbone_loads(name: str) -> None:
    net = load_backbone(RUNS / name)
    there = load_file(RUNS / name / "backbone.safetensors")
    assert {key: value.shape for key, value in net.state_dict().items()} == {k: v.shape for k, v in there.items()}
    assert all(torch.equal(value, there[key]) for key, value in net.state_dict().items())
    assert net(torch.rand(2, 3, 16, 16)).shape == (2, 16)


@pytest.mark.parametrize("name", [*PRETRAINED, "moco-shapes"])
def test_a_backbone_loads_from_its_checkpoint_and_config(name: str) -> None:
    """moco had not come to its end; of dino it is the teacher that is evaluated."""
    net = load_backbone(RUNS / name / "checkpoints" / "last.ckpt")
    state = torch.load(RUNS / name / "checkpoints" / "last.ckpt", weights_only=True)
    prefix = {"dino-shapes": "teacher."}.get(name, "backbone.")
    assert str(state["judged_by"]).startswith(prefix.rstrip("."))
    for key, value in net.state_dict().items():
        assert torch.equal(value, state["state_dict"][f"{state['judged_by']}.{key}"]), key


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "moco-shapes"])
def test_the_same_command_finds_it_finished(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (here / name / "results.json").read_bytes()
    assert main(COMMANDS[name].split()) == 0
    assert f"runs/{name} is finished; nothing to do" in capsys.readouterr().out
    assert (here / name / "results.json").read_bytes() == before


def test_another_command_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMANDS["simclr-shapes"].split(), "optimizer.base_lr=0.5"]) == 2
    err = capsys.readouterr().err
    assert "made with other settings (optimizer.base_lr: 0.003 -> 0.5)" in err


@pytest.mark.parametrize("name", [*PRETRAINED, "moco-shapes"])
def test_a_run_is_trained_for_one_more_epoch(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.load(here / name / "checkpoints" / "last.ckpt", weights_only=True)
    assert main([*COMMANDS[name].split(), "trainer.max_epochs=3", OFTEN]) == 0
    assert f"resuming runs/{name}" in capsys.readouterr().out
    found, after = results(here / name), torch.load(here / name / "checkpoints" / "last.ckpt", weights_only=True)
    assert (found["epochs"], found["steps"]) == (3, 12)
    assert (before["global_step"], after["global_step"]) == (8, 12)
    assert list(before["state_dict"]) == list(after["state_dict"])
    moved = [key for key, value in before["state_dict"].items() if not torch.equal(value, after["state_dict"][key])]
    assert moved
    stored = yaml.safe_load((here / name / "config.yaml").read_text())
    assert aliases.old_targets(stored) == {}


@pytest.mark.parametrize("name", PRETRAINED)
def test_knn_on_a_run(name: str, here: Path) -> None:
    assert main(["stage=knn", f"ckpt=runs/{name}"]) == 0
    assert 0 <= results(here / name / "knn-shapes")["knn_top1"] <= 1


@pytest.mark.parametrize("name", ["simclr-shapes", "mae-shapes"])
def test_a_linear_probe_on_a_run(name: str, here: Path) -> None:
    assert main(["stage=linear", f"ckpt=runs/{name}", "stage.probe.epochs=1", "name=probe"]) == 0
    assert 0 <= results(here / "probe")["linear_top1"] <= 1


def test_fine_tuning_a_run(here: Path) -> None:
    words = ["stage=finetune", "ckpt=runs/simclr-shapes", "stage.epochs=1", "stage.batch_size=16", "name=tuned"]
    assert main([*words, "trainer.accelerator=cpu", OFTEN]) == 0
    assert results(here / "tuned")["labels"] == 64


def test_a_new_training_from_an_exported_file(here: Path) -> None:
    file = here / "mae-shapes" / "export-shapes" / "backbone.safetensors"
    words = f"method=mae ckpt={file} data=shapes {SMALL} {DECODER} name=again".replace("max_epochs=2", "max_epochs=1")
    assert main([*words.split(), OFTEN]) == 0
    assert results(here / "again")["steps"] == 4


def test_every_class_in_their_configs_is_one_of_today() -> None:
    """And the configs name classes of every kind: what moves is noticed here."""
    seen = set[str]()

    def look(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if key == "_target_":
                seen.add(value)
            look(value)

    for file in sorted(RUNS.rglob("config.yaml")):
        look(yaml.safe_load(file.read_text()))
    known = (Path(__file__).parent / "fixtures" / "class_paths.txt").read_text().split()
    assert {path for path in seen if path.startswith("ssl_lightning.")} <= set(known)
    rooms = {path.split(".")[1] for path in seen if path.startswith("ssl_lightning.")}
    assert rooms >= {"callbacks", "data", "evaluation", "losses", "methods", "models", "optim", "stages"}
