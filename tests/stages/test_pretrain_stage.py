"""stage=pretrain from its first step to its verdict: who is exported, who is judged, and beside whom."""

import copy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_lightning import load_backbone
from ssl_lightning.callbacks.throughput import Throughput
from ssl_lightning.cli.compose import compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.stages import pretrain
from ssl_lightning.stages.common import split_random_features
from tests.stages.tiny_run import TinyData, a_folder, a_trainer, two_views

# Lightning itself uses what newer torch versions warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
CPU = torch.device("cpu")


def a_method(name: str) -> SSLMethod:
    small = ["method.projector.hidden_dim=8", "optimizer=adamw", "optimizer.base_lr=0.1"]
    small += ["method.projector.out_dim=12", "method.teacher.momentum=0.5"] if name == "dino" else []
    config = compose([f"method={name}", "data=cifar10", *small]).values
    torch.manual_seed(1)
    return instantiate(config["method"], backbone=ConvNetSmall(4), optimizer=instantiate(config["optimizer"]))


def go(tmp_path: Path, method: SSLMethod, data: TinyData) -> tuple[dict[str, Any], Path]:
    folder = a_folder(tmp_path / "run")
    trainer = partial(a_trainer(tmp_path), max_epochs=2, limit_val_batches=0)
    return pretrain.run(method, data, trainer, folder, "some", "tiny", k=5, temperature=0.1), folder.path


@pytest.mark.parametrize("name", ["simclr", "dino"])
def test_the_judged_network_is_exported_and_the_baseline_is_what_it_was(name: str, tmp_path: Path) -> None:
    method, data = a_method(name), TinyData(views=two_views(), labels_per_class=20, num_workers=0)
    before = copy.deepcopy(method.backbone)
    found, folder = go(tmp_path, method, data)
    exported, x = load_backbone(folder), torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(exported(x), method.eval().embed(x))
        student = torch.equal(exported(x), method.backbone.eval()(x))
    assert student is (name == "simclr")  # DINO's teacher is another network by now
    rows = data.labelled_indices()
    train, test = extract(exported, data.eval_loader("train", rows)), extract(exported, data.eval_loader("test"))
    top1 = knn_top1(train.x, train.labels, test.x, test.labels, 5, 0.1)
    bank, queries = split_random_features(before, data, CPU)
    by_chance = knn_top1(bank.x, bank.labels, queries.x, queries.labels, 5, 0.1)
    assert (found["knn_top1"], found["baselines"]["random_init"]["knn_top1"]) == (top1, by_chance)
    assert top1 != by_chance  # they can be told apart here
    assert (found["epochs"], found["steps"]) == (2, 2 * (90 // 32))
    assert found["protocol"]["knn"] == "cosine, k=5, T=0.1, bank 60"


def test_the_throughput_is_that_of_all_ranks() -> None:
    throughput, batch = Throughput(), SimpleNamespace(labels=torch.zeros(7))
    for _ in range(3):
        throughput.on_train_batch_end(SimpleNamespace(world_size=4), None, None, batch, 0)  # type: ignore[arg-type]
    assert throughput.images == 7 * 4 * 3


def test_what_the_stage_reports_is_what_was_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Eight(Throughput):
        images_per_second = 8.0  # type: ignore[assignment]

    monkeypatch.setattr(pretrain, "Throughput", Eight)
    monkeypatch.setattr(pretrain, "judge_backbone", lambda *args, **kwargs: {})
    found, _ = go(tmp_path, a_method("simclr"), TinyData(views=two_views(), num_workers=0))
    assert found["images_per_second"] == 8.0
