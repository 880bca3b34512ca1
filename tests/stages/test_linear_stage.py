"""stage=linear: on features computed once, and on augmented views."""

import json
from pathlib import Path

import pytest
import torch

from ssl_lightning import load_backbone
from ssl_lightning.__main__ import main
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.readouts import Readouts
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.modalities.image.sources.shapes import Shapes
from ssl_lightning.stages import linear
from ssl_lightning.tasks.classify import Classify
from tests.stages.tiny_run import TinyData, a_folder, a_run, a_trainer, judged

# Lightning itself uses what newer torch versions warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

QUICK = ProbeSettings(lrs=(0.1,), weight_decays=(0.0,), epochs=20)


def test_linear_stage_is_the_probe_on_the_run_s_features(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    data = TinyData(labels_per_class=10)
    folder = a_folder(tmp_path / "out")
    found = linear.run(judged(run), data, a_trainer(tmp_path), folder, 0, probe=QUICK)
    net, rows = load_backbone(run), data.labelled_indices("train")
    train, test = extract(net, data.eval_loader("train", rows)), extract(net, data.eval_loader("test"))
    assert found["linear_top1"] == probe_grid(train.x, train.labels, test.x, test.labels, Classify.of(3), QUICK).top1
    assert found["labels"] == 30
    pixels = probe_grid(
        data.raw_pixels("train", rows), train.labels, data.raw_pixels("test"), test.labels, Classify.of(3), QUICK
    )
    assert found["baselines"]["raw_pixels"] == {"linear_top1": pixels.top1}
    assert set(found["baselines"]["random_init"]) == {"linear_top1"}
    assert "chosen lr 0.1, weight decay 0" in found["protocol"]["linear"]


def test_augmented_protocol_learns_and_leaves_the_backbone_alone(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    folder = a_folder(tmp_path / "out")
    found = linear.run(
        judged(run), TinyData(), a_trainer(tmp_path), folder, 0,
        augmented=True, epochs=8, batch_size=16, base_lr=1.0, crop_scale=(1.0, 1.0),
    )  # fmt: skip
    assert found["linear_top1"] > 0.8
    assert set(found["baselines"]) == {"random_init", "raw_pixels"}
    state = torch.load(folder.path / "linear" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    before = load_backbone(run).state_dict()
    assert all(torch.equal(state[f"backbone.{key}"], value) for key, value in before.items())


def test_linear_needs_labels(tmp_path: Path) -> None:
    folder, net = a_folder(tmp_path / "out"), judged(a_run(tmp_path / "run"))
    with pytest.raises(UserError, match="data has no labels, and stage=linear"):
        linear.run(net, TinyData(labelled=False), a_trainer(tmp_path), folder, 0)


def test_readouts_and_solvers_are_chosen_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = a_run(tmp_path / "run")
    words = ["stage=linear", f"ckpt={run}", "data=shapes", "data.size=90", "data.test_size=45", "data.num_workers=0"]
    words += ["trainer=cpu", "stage.probe.weight_decays=[0.001,0.1]"]
    names = ("features", "mean", "last2")
    fast = ["stage.probe.lrs=[0.1]", "stage.probe.epochs=5"]
    for solver, more in (("sgd", fast), ("lbfgs", ["stage.probe.optimizer=lbfgs"])):
        assert main([*words, *more, "stage.probe.readouts=[features,mean,last2]", f"name={solver}"]) == 0
        found = json.loads(Path("runs", solver, "results.json").read_text())
        data = Shapes(size=90, test_size=45, image_size=16, num_workers=0, mean=(0.4,) * 3, std=(0.3,) * 3)
        reading = Readouts(load_backbone(run), names)
        train, test = extract(reading, data.eval_loader("train")), extract(reading, data.eval_loader("test"))
        probe = ProbeSettings(lrs=(0.1,), weight_decays=(0.001, 0.1), epochs=5, optimizer=solver, readouts=names)
        task = Classify.of(10)
        wanted = probe_grid(train.x, train.labels, test.x, test.labels, task, probe, reading.widths)
        assert found["linear_top1"] == wanted.top1
        assert found["readout"] == wanted.readout
        assert f"readout {wanted.readout}" in found["protocol"]["linear"]
        assert set(found["baselines"]) == {"random_init", "raw_pixels"}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stage.probe.readouts=[cls]", "ConvNetSmall has no class token to read cls from"),
        ("stage.probe.readouts=[last9]", "last9 asks for 9 stages, and ConvNetSmall has 4"),
        ("stage.probe.readouts=[means]", "no readout named 'means'"),
        ("stage.probe.optimizer=adam", "no probe optimizer named 'adam'"),
    ],
)
def test_what_a_probe_cannot_do_is_one_line(
    word: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = a_run(tmp_path / "run")
    words = ["stage=linear", f"ckpt={run}", "data=shapes", "data.size=30", "data.test_size=20", "trainer=cpu"]
    assert main([*words, "name=out", word]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not Path("runs/out").exists()
