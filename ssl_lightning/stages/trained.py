"""What a stage that trains on labels leaves behind: its model, and how far its probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ssl_lightning.core.distributed import is_main
from ssl_lightning.core.task import CLASSES, Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation.calibration import Calibration
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.linear_probe import ProbeResult
from ssl_lightning.reports import facts, thumbnails
from ssl_lightning.reports.keep import one_thread
from ssl_lightning.reports.pages import quietly
from ssl_lightning.reports.predicted import SIDE, Mistakes, keep
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.runs.model import Model, save_model
from ssl_lightning.stages.common import Judged
from ssl_lightning.stages.listed import write_listed
from ssl_lightning.tasks.finetuner import Finetuner


def keep_model(
    judged: Judged, data: DataModule, run: RunFolder, stage: str, data_name: str, trained: Finetuner | Model
) -> None:
    """Write `model.safetensors` into the run's folder, on rank 0; the card says how this data fed the network."""
    if not is_main():
        return
    model = trained if isinstance(trained, Model) else model_of(trained)
    model.stage = stage
    told: Mapping[str, Any] = {key: judged.card[key] for key in ("backbone", "method") if judged.card.get(key)}
    save_model(model, {**told, **data.card(), "data": data_name}, run.path)


def leave(
    judged: Judged,
    data: DataModule,
    task: Task,
    run: RunFolder,
    data_name: str,
    found: dict[str, Any],
    module: Finetuner,
    outputs: Features,
) -> None:
    """At the end of a fine-tuning: its model, the list of its outputs, and what the page shows of them.

    Args:
        found: takes what results.json is to tell of its probabilities, `ece` and `brier`.
        outputs: for the test items, in place of features.
    """
    keep_model(judged, data, run, "finetune", data_name, module)
    if task.listed_in:
        write_listed(task, data, outputs, run.path)
    shares = task.probabilities(outputs.x) if task.reads == CLASSES else None
    if shares is None:
        return
    counted, mistakes = Calibration(), Mistakes()
    labels, said = outputs.labels, outputs.x.argmax(dim=1)
    counted.update(shares, labels, said)
    found |= {"ece": counted.ece, "brier": counted.brier}
    if not is_main():
        return
    sure, paths = shares.max(dim=1).values, getattr(data.test_set, "paths", None)
    for row in (said != labels).nonzero().flatten().tolist():
        index = int(outputs.indices[row])
        name = paths[index] if paths else f"test {index}"
        mistakes.add(float(sure[row]), row, int(labels[row]), int(said[row]), name, index)
    KeepPage(run, data, judged.backbone)(task, counted, mistakes)


class KeepPage:
    """Keeps what the page shows of predictions, with pictures of the mistakes; what fails here is a warning."""

    def __init__(self, run: RunFolder, data: DataModule, network: nn.Module) -> None:
        self.run, self.data, self.network = run, data, network

    def __call__(self, task: Task, counted: Calibration, mistakes: Mistakes, of_the_test_set: bool = True) -> None:
        """`of_the_test_set`: the mistakes' items are rows of the test set; else each is what the network was given."""
        with quietly("the predictions of the page"):
            worst = mistakes.sorted()
            noun = {"noun": self.data.noun, "modality": self.data.modality, "classes": list(task.names)}
            with torch.random.fork_rng(devices=[]), torch.no_grad(), one_thread():
                if of_the_test_set:
                    found = thumbnails.views_of(self.data, "test", [m.item for m in worst])
                    views = {i: found[m.item] for i, m in enumerate(worst) if m.item in found}
                else:
                    views = {i: m.item for i, m in enumerate(worst)}
                pictures = thumbnails.drawn(self.data, views, SIDE)
            about = facts.of_network(self.network) | facts.of_versions() | facts.of_command(self.run.overrides)
            about |= facts.of_data(self.data) if of_the_test_set else noun
            keep(self.run.path, task.names, counted, worst, pictures, about)


def model_of(trained: Finetuner) -> Model:
    """The network, its head and its task, sharing their weights."""
    norm = None if isinstance(trained.norm, nn.Identity) else trained.norm
    return Model(trained.backbone, trained.task, trained.head, norm, float(trained.shorter))


def keep_probe(
    judged: Judged, data: DataModule, task: Task, run: RunFolder, data_name: str, probe: ProbeResult
) -> None:
    """Write the model of a frozen backbone with a linear probe as its head."""
    head = nn.Linear(probe.weight.shape[1], probe.weight.shape[0])
    head.load_state_dict({"weight": probe.weight, "bias": probe.bias})
    keep_model(judged, data, run, "linear", data_name, Model(judged.backbone, task, head, readout=probe.readout))
