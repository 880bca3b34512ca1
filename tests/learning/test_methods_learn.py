"""Each method learns on `shapes`: after a short run its features beat those of the same backbone at random.

By cosine kNN where the method asks for features that can be compared so, by a linear probe where it does not: what
fills in hidden patches, colours or places leaves the class among many other things that are as large. The margin is the
same. Kept out of `make test` for its length: `make test-learning`.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.modalities.image.data import DataModule
from ssl_lightning.modalities.image.sources import shapes
from ssl_lightning.stages.common import split_features, split_random_features
from ssl_lightning.tasks.classify import Classify
from tests.learning.short_run import composed, short_run
from tests.methods.harness import METHODS

pytestmark = [pytest.mark.learning, pytest.mark.timeout(900)]  # two at a time may share a slow machine
MARGIN = 0.05  # of accuracy, over random weights
DATA = ("data.size=10000", "data.test_size=2000")
PROBE = ProbeSettings(lrs=(0.01, 0.1), weight_decays=(1e-4,), epochs=20)
Judge = Callable[[Features, Features], float]


def knn(train: Features, test: Features) -> float:
    return knn_top1(train.x, train.labels, test.x, test.labels)


def linear(train: Features, test: Features) -> float:
    return probe_grid(train.x, train.labels, test.x, test.labels, Classify.of(10), PROBE).top1


# In minutes a network learns by steps, not by images: small ones, at the rate per step that the CPU recipe has at 128.
SMALL = ("data.batch_size=64", "optimizer.base_lr=6e-3")
VIT = ("data.batch_size=64", "optimizer.base_lr=8e-3")
# Of a ViT's patches: a quarter as many, or half. A head of few dimensions: the tests' ViT has 64.
COARSE = "backbone.patch_size=8"
LITTLE = "data.image_size=24"
HEAD = "method.projector.hidden_dim=128"
PROTOTYPES = "method.projector.out_dim=256"
DECODER = ("method.decoder.dim=32", "method.decoder.heads=2", "method.decoder.depth=1")
PREDICTOR = tuple(word.replace("decoder", "predictor") for word in DECODER)
TILES = (*SMALL, "method.tile_size=10")


@dataclass(frozen=True)
class Run:
    """How long a method needs to show that it learns, by which judge, and what makes that short."""

    judge: Judge = knn
    steps: int = 300
    overrides: tuple[str, ...] = SMALL


RUNS = {
    **{name: Run(knn, 600, ()) for name in ("byol", "ressl", "simsiam")},  # 128 images a step
    "dino": Run(knn, 600, (HEAD, PROTOTYPES)),
    **{name: Run(knn, 450) for name in ("deepcluster_v2", "swav", "tico")},
    "wmse": Run(knn, 300, ()),  # whitens 128 rows at a time
    "densecl": Run(knn, 300, (*SMALL, "method.queue_size=512")),
    "mae": Run(linear, 600, (*VIT, LITTLE, *DECODER)),
    "ijepa": Run(linear, 450, (*VIT, LITTLE, *PREDICTOR)),
    "simmim": Run(linear, 400, (*VIT, LITTLE)),
    "data2vec": Run(linear, 700, (*VIT, COARSE)),
    "ibot": Run(linear, 700, (*VIT, COARSE, HEAD, PROTOTYPES)),
    "dinov2": Run(knn, 300, (*VIT, COARSE, HEAD, PROTOTYPES)),
    "msn": Run(linear, 500, (COARSE, HEAD)),  # its prototypes want the larger batch
    "cpc": Run(linear, 300, (*SMALL, "method.tile_size=16", "method.stride=8", "method.offsets=[2,2]")),
    "relative_position": Run(linear, 1100, TILES),
    "jigsaw": Run(linear, 500, (*TILES, "method.drop_colors=true", "method.projector.out_dim=24")),
    "colorization": Run(knn, 250, (*SMALL, "method.cells=2")),
}


def trained(folder: Path, name: str, run: Run) -> tuple[SSLMethod, DataModule, nn.Module]:
    """The method after its run, the run's data, and the backbone that it began with."""
    at_start: list[nn.Module] = []
    method, data = short_run(
        folder,
        [f"method={name}", *DATA, *run.overrides],
        run.steps,
        change=lambda method: at_start.append(copy.deepcopy(method.backbone)),
    )
    return method, data, at_start[0]


def gain(judge: Judge, method: SSLMethod, at_start: nn.Module, data: DataModule) -> float:
    """By how much the method's features beat those of the backbone it began with."""
    cpu = torch.device("cpu")
    return judge(*split_features(method.embed, data, cpu)) - judge(*split_random_features(at_start, data, cpu))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "colorization"])
def test_a_short_run_beats_random_weights(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    run = RUNS.get(name, Run())
    method, data, at_start = trained(tmp_path, name, run)
    gained = gain(run.judge, method, at_start, data)
    record_property("gain", gained)
    assert gained > MARGIN


LUMA = torch.tensor([0.2126, 0.7152, 0.0722])  # how much of an image's lightness is its red, green and blue (BT.709)


def tinted(count: int, image_size: int, seed: int, split: str) -> Tensor:
    """`shapes.drawn_once` for images whose first figure has the hue of its class, as bananas are yellow.

    The hue changes no lightness (to the first order), so that a grey image does not betray it.
    """
    parts = []
    for rows in torch.arange(count).split(shapes.BLOCK):
        drawn = shapes.render(rows, image_size, seed, split)
        turn = drawn.labels * (2 * math.pi / len(shapes.CLASSES))
        hue = torch.stack([torch.cos(turn - third * 2 * math.pi / 3) for third in range(3)], 1)  # (B, 3)
        hue = hue - hue @ LUMA[:, None]
        shift = 60 * hue[:, None, None] * drawn.masks[..., None]  # (B, H, W, 3)
        parts.append((drawn.images + shift).round().clamp(0, 255).byte())
    return torch.cat(parts)


def test_colorization_learns_what_a_colour_belongs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """A figure of `shapes` has any colour, so there is nothing to predict: it learns on tinted figures, and is judged,
    as all others, on `shapes` itself, where the hue tells nothing.
    """
    run = RUNS["colorization"]
    with monkeypatch.context() as patch:
        patch.setattr(shapes, "drawn_once", tinted)
        method, _, at_start = trained(tmp_path, "colorization", run)
    plain = instantiate(composed(["method=colorization", *DATA, *run.overrides])["data"])
    plain.setup("fit")
    gained = gain(run.judge, method, at_start, plain)
    record_property("gain", gained)
    assert gained > MARGIN
