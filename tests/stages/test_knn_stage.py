"""stage=knn against the equation, written out."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.stages import knn
from ssl_lightning.stages.common import split_random_features
from tests.stages.tiny_run import TinyData, a_run, a_trainer, draw, judged


def naive_knn(bank: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor, k: int, t: float) -> list[int]:
    predicted = []
    for query in queries.double():
        scores = [float(F.cosine_similarity(query, row, dim=0)) for row in bank.double()]
        nearest = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
        votes = torch.zeros(3, dtype=torch.float64)
        for i in nearest:
            votes[labels[i]] += torch.exp(torch.tensor(scores[i] / t, dtype=torch.float64))
        predicted.append(int(votes.argmax()))
    return predicted


def test_knn_stage(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    data = TinyData(train=60, test=30)
    found = knn.run(judged(run, seed=3), data, a_trainer(tmp_path), k=7, temperature=0.2, chunk=11)

    def pixels(seed: int, count: int) -> torch.Tensor:
        return (draw(count, seed)[0].permute(0, 3, 1, 2).double() / 255 - 0.4) / 0.3

    net = load_backbone(run).double()
    with torch.no_grad():
        bank, queries = net(pixels(0, 60)), net(pixels(1, 30))
    labels, truth = draw(60, 0)[1], draw(30, 1)[1]
    predicted = naive_knn(bank, labels, queries, 7, 0.2)
    assert found["knn_top1"] == sum(p == t for p, t in zip(predicted, truth.tolist())) / 30

    raw, raw_queries = (draw(n, s)[0].flatten(1).double() for n, s in ((60, 0), (30, 1)))
    by_pixels = [
        sum(p == t for p, t in zip(naive_knn(raw - shift, labels, raw_queries - shift, 7, 0.2), truth.tolist())) / 30
        for shift in (0, raw.mean(dim=0))
    ]
    assert found["baselines"]["raw_pixels"]["knn_top1"] == max(by_pixels)
    net = judged(run, seed=3).random
    bank, queries = split_random_features(net, data, torch.device("cpu"))
    by_chance = sum(p == t for p, t in zip(naive_knn(bank.x, labels, queries.x, 7, 0.2), truth.tolist())) / 30
    assert found["baselines"]["random_init"]["knn_top1"] == by_chance
    assert by_chance != found["knn_top1"]  # the two networks can be told apart here
    assert found["method"] == "simclr"
    assert found["protocol"] == {"knn": "cosine, k=7, T=0.2, bank 60"}


def test_the_bank_is_what_labels_allow(tmp_path: Path) -> None:
    data = TinyData(labels_per_class=4)
    found = knn.run(judged(a_run(tmp_path / "run")), data, a_trainer(tmp_path))
    assert found["protocol"] == {"knn": "cosine, k=12, T=0.07, bank 12"}


def test_knn_needs_labels(tmp_path: Path) -> None:
    data = TinyData(labelled=False)
    with pytest.raises(UserError, match="data has no labels, and stage=knn"):
        knn.run(judged(a_run(tmp_path / "run")), data, a_trainer(tmp_path))
