"""stage=knn: how well do the nearest neighbours of a test image tell its class?"""

from dataclasses import replace
from typing import Any

import torch

from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.stages.common import (
    Judged,
    Stopwatch,
    TrainerFactory,
    device_of,
    naive_features,
    need_finite,
    need_labels,
    report,
    same_items,
    split_features,
    split_random_features,
)
from ssl_lightning.stages.probes import OtherData, Probes, data_of, measured


def run(
    judged: Judged,
    data: DataModule,
    trainer: TrainerFactory,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int | None = None,
    other_data: OtherData | None = None,
    probes: Probes | None = None,
) -> dict[str, Any]:
    """Cosine kNN weighted by exp(cosine / temperature); the bank is every training image whose label may be used.

    Args:
        k: neighbours that vote; all of a smaller bank.
        chunk: test images at a time; None chooses by the size of the bank.
        other_data: makes the data of a probe.
        probes: further labels to tell from the same features, {name: what of the data is another}.
    """
    watch, device = Stopwatch(), device_of(trainer)
    same_items(judged, data)
    need_labels(data, "knn")
    others = data_of(probes, other_data, judged, "knn")
    found = on_neighbours(judged, data, device, k, temperature, chunk)
    found |= measured(others, lambda other: on_neighbours(judged, other, device, k, temperature, chunk))
    return report(judged, watch, **found)


def on_neighbours(
    judged: Judged, data: DataModule, device: torch.device, k: int, temperature: float, chunk: int | None
) -> dict[str, Any]:
    """The kNN of trained, random and naive features of these data."""
    train, test = split_features(judged.backbone.to(device), data, device)
    need_finite(("train", train), ("test", test), noun=data.noun)
    k = min(k, len(train))

    def top1(bank: Features, queries: Features) -> float:
        x, labels, y, truth = (t.to(device) for t in (bank.x, bank.labels, queries.x, queries.labels))
        return knn_top1(x, labels, y, truth, k, temperature, chunk)

    random = top1(*split_random_features(judged.random.to(device), data, device))
    naive, variant = harder_naive(top1, train, test, data)
    baselines = {"random_init": {"knn_top1": random}, data.naive_name: {"knn_top1": naive, "variant": variant}}
    found = {"knn_top1": top1(train, test), "baselines": baselines}
    return {
        **found,
        "verdict": verdict.of(found, test.x, lambda: data.naive_features("test", test.indices), data.noun),
        "protocol": {"knn": f"cosine, k={k}, T={temperature:g}, bank {len(train)}"},
    }


def harder_naive(top1: Any, train: Features, test: Features, data: DataModule) -> tuple[float, str]:
    """kNN on naive features, as they are and with the training mean taken off: the better one, and which it is."""
    bank, queries = (replace(f, x=x) for f, x in zip((train, test), naive_features(data, train, test)))
    found = {}
    for variant, shift in (("plain", torch.zeros(bank.x.shape[1])), ("centered", bank.x.mean(dim=0))):
        found[variant] = top1(replace(bank, x=bank.x - shift), replace(queries, x=queries.x - shift))
    best = max(found, key=lambda variant: found[variant])
    return found[best], best
