"""Each method learns on `shapes`: after a short run its features beat those of the same backbone at random.

By cosine kNN where the method asks for features that can be compared so, by a linear probe where it does not: what
fills in hidden patches, colours or places leaves the class among many other things that are as large. The margin is the
same. Kept out of `make test` for its length: `make test-learning`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.stages.common import split_features, split_random_features
from tests.learning.short_run import short_run
from tests.methods.harness import METHODS

pytestmark = pytest.mark.learning
MARGIN = 0.05  # of accuracy, over random weights
DATA = ["data.size=10000", "data.test_size=2000", "data.batch_size=128"]
PROBE = ProbeSettings(lrs=(0.01, 0.1), weight_decays=(1e-4,), epochs=20)


def knn(train: Features, test: Features) -> float:
    return knn_top1(train.x, train.labels, test.x, test.labels)


def linear(train: Features, test: Features) -> float:
    return probe_grid(train.x, train.labels, test.x, test.labels, 10, PROBE).top1


@dataclass(frozen=True)
class Run:
    """How long a method needs to show that it learns, by which judge, and what makes that short."""

    judge: Callable[[Features, Features], float] = knn
    steps: int = 300
    overrides: tuple[str, ...] = ()


# A figure's colour is chance on `shapes`: minutes of a core bring colourisation 3 to 4.5 points (docs/log.md).
LATE = ("colorization",)
# A ViT learns by steps, not by images: many small ones, and large. Patches of 8 px cost a quarter of those of 4.
VIT = ("data.batch_size=64", "optimizer.base_lr=8e-3")
COARSE = "backbone.patch_size=8"
TILES = ("method.drop_colors=true", "method.tile_size=10")
RUNS = {
    **{name: Run(knn, 600) for name in ("byol", "dino", "ressl", "simsiam")},
    "mae": Run(linear, 900, (*VIT, "recipe.decoder.dim=48", "recipe.decoder.heads=2", "recipe.decoder.depth=1")),
    "ijepa": Run(linear, 600, (*VIT, "recipe.decoder.dim=32", "recipe.decoder.heads=2", "recipe.decoder.depth=1")),
    "simmim": Run(linear, 500, VIT),
    "data2vec": Run(linear, 900, (*VIT, COARSE)),
    "ibot": Run(linear, 700, (*VIT, COARSE)),
    "dinov2": Run(knn, 400, (*VIT, COARSE)),
    "msn": Run(linear, 1000, ("optimizer.base_lr=1.5e-3", COARSE)),  # its prototypes want the larger batch
    "cpc": Run(linear, 300, ("method.tile_size=16", "method.stride=8", "method.offsets=[2,2]")),
    "relative_position": Run(linear, 1200, TILES),
    "jigsaw": Run(linear, 1100, (*TILES, "recipe.permutations=24")),
}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in LATE])
def test_a_short_run_beats_random_weights(name: str, tmp_path: Path) -> None:
    run = RUNS.get(name, Run())
    at_start: list[nn.Module] = []
    method, data = short_run(
        tmp_path,
        [f"method={name}", *DATA, *run.overrides],
        run.steps,
        change=lambda method: at_start.append(copy.deepcopy(method.backbone)),
    )
    cpu = torch.device("cpu")
    learned = run.judge(*split_features(method.embed, data, cpu))
    random = run.judge(*split_random_features(at_start[0], data, cpu))
    assert learned > random + MARGIN
