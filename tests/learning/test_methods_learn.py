"""Each method learns on `shapes`: after a short run its kNN beats the same backbone at random by a stated margin.

Kept out of `make test` for its length: `make test-learning`. About 40 seconds each on one core. Seen on 2026-11-24:
random weights 19.6 %; the methods 26 to 39 %, and 62 % with labels (SupCon).
"""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.stages.common import split_features, split_random_features
from tests.learning.short_run import short_run
from tests.methods.harness import METHODS

pytestmark = pytest.mark.learning
# Not so soon, and not by kNN: runs of minutes and a linear probe show that these learn (README.md, the table of
# `shapes`; each row has its command).
LATE = {
    "ijepa",
    "jigsaw",
    "mae",
    "relative_position",
    "simmim",
    "ibot",
    "dinov2",
    "data2vec",
    "msn",
    "colorization",
    "cpc",
}
MARGIN = 0.05  # of kNN accuracy, over random weights
STEPS = 600
DATA = ["data.size=10000", "data.test_size=2000", "data.batch_size=128"]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in LATE])
def test_a_short_run_beats_random_weights(name: str, tmp_path: Path) -> None:
    at_start: list[nn.Module] = []
    method, data = short_run(
        tmp_path,
        [f"method={name}", *DATA],
        STEPS,
        change=lambda method: at_start.append(copy.deepcopy(method.backbone)),
    )
    cpu = torch.device("cpu")
    train, test = split_features(method.embed, data, cpu)
    random_train, random_test = split_random_features(at_start[0], data, cpu)
    learned = knn_top1(train.x, train.labels, test.x, test.labels)
    random = knn_top1(random_train.x, random_train.labels, random_test.x, random_test.labels)
    assert learned > random + MARGIN
