"""OnlineKNN inside a run: clean features of the current weights, off without labels, not in the sanity check."""

from pathlib import Path

import pytest
import torch

from ssl_lightning.callbacks.labels import unique_rows
from ssl_lightning.callbacks.online_knn import OnlineKNN
from tests.callbacks.toy import ToyData, ToyMethod, fit


def naive_knn(method: ToyMethod, data: ToyData, k: int, temperature: float) -> float:
    """Wu et al., section 3.4, one query at a time."""
    bank = torch.cat([method.embed(b.views[0]) for b in data.bank.items]).detach()
    labels = torch.cat([b.labels for b in data.bank.items])
    hits = []
    for batch in data.queries.items:
        for query, label in zip(method.embed(batch.views[0]).detach(), batch.labels):
            similarity = torch.cosine_similarity(query[None], bank)
            votes = torch.zeros(3)
            for i in similarity.argsort(descending=True)[:k]:
                votes[labels[i]] += (similarity[i] / temperature).exp()
            hits.append(votes.argmax() == label)
    return torch.stack(hits).float().mean().item()


@pytest.mark.parametrize("k", [5, 1000])
def test_equals_a_plain_loop_on_the_last_weights(tmp_path: Path, k: int) -> None:
    method, data = ToyMethod(), ToyData()
    for dataset in (data.bank, data.queries):  # noisy, so that the accuracy is neither 0 nor 1
        for batch in dataset.items:
            batch.views[0].add_(2.5 * torch.randn(batch.views[0].shape))
    trainer = fit(method, tmp_path, [OnlineKNN(k, 0.2)], data, max_epochs=2, num_sanity_val_steps=1)
    expected = naive_knn(method, data, min(k, 48), 0.2)
    assert 0.35 < expected < 0.99
    assert trainer.callback_metrics["val/knn_top1"].item() == pytest.approx(expected)


def test_off_without_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="ssl_lightning"):
        trainer = fit(ToyMethod(), tmp_path, [OnlineKNN()], ToyData(labelled=False), max_epochs=2)
    assert [r.message for r in caplog.records if r.name == "ssl_lightning"] == ["kNN is off: the data has no labels"]
    assert "val/knn_top1" not in trainer.callback_metrics


def test_unique_rows_points_at_each_value_once() -> None:
    indices = torch.tensor([7, 3, 7, 9, 3, 3])
    rows = unique_rows(indices)
    assert sorted(indices[rows].tolist()) == [3, 7, 9]
