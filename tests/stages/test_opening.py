"""The opening lines of a stage: true figures of network and data, and never the end of a run."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning.core import progress
from ssl_lightning.stages import opening
from tests.stages.tiny_run import TinyData


class Method(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(1000, 100, bias=False)
        self.head = nn.Linear(100, 500, bias=False)
        self.teacher = nn.Linear(1000, 100, bias=False).requires_grad_(False)


def test_parameters_are_counted_once_and_frozen_ones_are_not_trained() -> None:
    assert opening.networks(Method()) == "Linear with 0.10 M parameters (0.15 M trained in all)"
    assert opening.networks(nn.Linear(1000, 10, bias=False)) == "Linear with 0.01 M parameters"


def test_items_and_classes() -> None:
    data = TinyData()
    count = f"{len(data.train_set)} training and {len(data.test_set)} test images"
    assert opening.items_of(data) == f"{count} in {len(data.classes)} classes"
    assert opening.items_of(TinyData(labelled=False)).endswith("images, not all labelled")


def trainer(**others: Any) -> Any:
    told = {
        "accumulate_grad_batches": 1,
        "world_size": 1,
        "num_training_batches": 156,
        "max_epochs": 5,
        "max_steps": -1,
    }
    return SimpleNamespace(**(told | others))


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({}, "5 epochs of 156 steps, 128 images a step"),
        ({"world_size": 4}, "5 epochs of 156 steps, 512 images a step (128 x 4)"),
        ({"accumulate_grad_batches": 2}, "5 epochs of 78 steps, 256 images a step (128 x 1 x 2)"),
        ({"max_epochs": 1, "num_training_batches": 1}, "1 epoch of 1 step, 128 images a step"),
        ({"max_epochs": -1, "max_steps": 1000}, "1,000 steps in epochs of 156 steps, 128 images a step"),
    ],
)
def test_length(others: dict[str, Any], words: str) -> None:
    data = SimpleNamespace(batch_size=128, noun="image")
    assert opening.length_of(trainer(**others), data) == words


def test_device() -> None:
    assert opening.device_of(torch.device("cpu"), 1, "32-true") == "CPU, float32"
    assert opening.device_of(torch.device("cpu"), 2, "bf16-mixed") == "2 x CPU, bf16-mixed"
    assert opening.device_of(torch.device("cpu"), 1) == "CPU"


def test_data_that_does_not_tell_loses_a_line_and_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    progress.watched(True)
    try:
        opening.tell_backbone(nn.Linear(2, 2), "simclr")
        opening.tell_items(SimpleNamespace(), torch.device("cpu"))  # type: ignore[arg-type]
        opening.say("data", lambda: "a\x1b[2Jb")
    finally:
        progress.watched(False)
    network, data, device, escaped = capsys.readouterr().out.splitlines()
    assert network == "network: Linear with 0.00 M parameters, trained by simclr"
    assert data == "data:    not known (AttributeError)"
    assert device == "device:  CPU"
    assert escaped == "data:    a\\x1b[2Jb"
