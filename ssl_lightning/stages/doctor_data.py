"""What `stage=doctor` says of the data: counts and classes here, the items themselves where their modality looks."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import torch

from ssl_lightning.core.finding import Finding
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import counted

MODALITIES = ("image", "audio")  # whose folder has a `checkup.look`
UNEVEN, RARE = 10, 5  # times as many in one class as in another; items of a class


def look(data: DataModule, seconds: float) -> list[Finding]:
    """Counts, classes, and what the modality sees in about so many seconds."""
    found = [*_counts(data), *_classes(data)]
    if data.modality in MODALITIES:
        found += import_module(f"ssl_lightning.modalities.{data.modality}.checkup").look(data, seconds)
    return found


def _counts(data: DataModule) -> Iterator[Finding]:
    train, test = len(data.train_set), len(data.test_set)
    what = f"{counted(train, data.noun)} to train on, {test:,} to evaluate on"
    if train < 500:
        fix = "start from pretrained weights: ckpt=timm:resnet18.a1_in1k backbone=resnet18, or a run of yours"
        yield Finding("data", "watch", f"{what}: too few to learn much from without labels", fix)
    else:
        yield Finding("data", "ok", what)
    if test < 100:
        yield Finding("data", "watch", f"{test} to evaluate on: exact to {100 / max(test, 1):.0f} points at best",
                      "a larger data.test_fraction, or a test folder")  # fmt: skip


def _classes(data: DataModule) -> Iterator[Finding]:
    items = data.probe_set
    if items.targets is not None or not bool((items.labels >= 0).any()):
        yield Finding("data", "ok", "no classes: kNN and the linear probe cannot be computed" if items.targets is None
                      else f"{counted(len(items.target_names), 'label')} each")  # fmt: skip
        return
    counts = torch.bincount(items.labels[items.labels >= 0], minlength=len(items.classes))
    names = [items.classes[i] for i in counts.argsort().tolist()]
    least, most = int(counts.min()), int(counts.max())
    what = f"{len(names)} classes, from {least} ({names[0]}) to {most} ({names[-1]}) training {data.noun}s"
    if least < RARE:
        yield Finding("data", "watch", what, f"classes of fewer than {RARE} cannot be learned; merge or drop them")
    elif most > UNEVEN * least:
        fix = f"answering {names[-1]} alone is right in {most / int(counts.sum()):.0%} of cases; look beyond accuracy"
        yield Finding("data", "watch", what, fix)
    else:
        yield Finding("data", "ok", what)
