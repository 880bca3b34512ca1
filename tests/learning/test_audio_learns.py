"""SimCLR learns on `tones`: after a minute its features tell melodies of instruments it has not heard.

Random weights and mel statistics know the timbre, and guess whether a melody rises and how fast it trembles. Kept out
of `make test` for its length: `make test-learning`.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.stages.common import naive_features, split_features, split_random_features
from tests.learning.short_run import short_run

pytestmark = [pytest.mark.learning, pytest.mark.timeout(900)]
MARGIN = 0.05  # of accuracy; there are eight classes
TONES = ("data=tones", "data.size=2000", "data.test_size=500", "data.batch_size=64", "optimizer.base_lr=6e-3")
COARSE = ("data.mels=32", "data.hop=0.02")  # a quarter of the work


def test_simclr_on_tones_beats_random_weights_and_mel_statistics(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    begun: list[nn.Module] = []
    method, data = short_run(
        tmp_path,
        ["method=simclr", *TONES, *COARSE],
        steps=200,
        change=lambda method: begun.append(copy.deepcopy(method.backbone)),
    )
    cpu = torch.device("cpu")
    train, test = split_features(method.embed, data, cpu)
    random, random_test = split_random_features(begun[0], data, cpu)
    naive, naive_test = naive_features(data, train, test)
    learned, at_random, by_hand = (
        knn_top1(x, train.labels, y, test.labels)
        for x, y in ((train.x, test.x), (random.x, random_test.x), (naive, naive_test))
    )
    record_property("learned, at random, by hand", (learned, at_random, by_hand))  # kept by --junitxml
    assert learned > at_random + MARGIN
    assert learned > by_hand + MARGIN
