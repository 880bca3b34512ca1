"""stage=linear: on features computed once, and on augmented views."""

from pathlib import Path

import pytest
import torch

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
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
