"""The field's classic experiment: take a method's safeguard away, and it collapses, and the Collapse callback says so.

Two runs each on `shapes`, which differ in the safeguard alone; the sound one must not be warned of. Collapse has two
faces here. Under a loss of cosines whose projector ends in BatchNorm, each dimension keeps its spread, so that all
dimensions become one (rank 1: dimensional). Under a loss of distances the vectors shrink to one point (complete).
Steps are as many as a collapse takes to show, and as its sound twin is watched for. Kept out of `make test` for its
length: `make test-learning`.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from torch import nn

from ssl_lightning.callbacks.collapse import Collapse
from ssl_lightning.methods import swav
from ssl_lightning.models.vit import take
from tests.learning.short_run import short_run

pytestmark = [pytest.mark.learning, pytest.mark.timeout(900)]  # two at a time may share a slow machine
STEPS = 150
DATA = ["data.size=4800", "data.test_size=64", "data.batch_size=64", "scheduler=constant"]


def nothing(method: Any) -> None:
    pass


def stop_gradient(method: Any) -> None:
    """SimSiam on projections that keep their gradient: algorithm 1 of the paper without `z.detach()`."""

    def distance(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return -nn.functional.cosine_similarity(p, z, dim=1).mean()

    def training_step(batch: Any, batch_idx: int) -> Any:
        x1, x2 = batch.global_views
        f1, f2 = method.backbone(x1), method.backbone(x2)
        z1, z2 = method.projector(f1), method.projector(f2)
        loss = distance(method.predictor(z1), z2) / 2 + distance(method.predictor(z2), z1) / 2
        return method.output(loss, torch.cat([f1, f2]), z1, z2)

    method.training_step = training_step


def predictor(method: Any) -> None:
    method.predictor = nn.Identity()


def teacher(method: Any) -> None:
    """I-JEPA whose targets come from the network that learns, gradient and all: neither EMA nor stop-gradient."""

    def answers(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        patches = method.backbone.split(method.backbone.tokens(x))[1]  # (B, N, D)
        patches = nn.functional.layer_norm(patches, patches.shape[-1:])
        return take(patches, places.flatten(1)).unflatten(1, places.shape[1:])

    method.answers = answers


@dataclass
class Experiment:
    """`sound` is the whole method; `without` (overrides) or `remove` (a change to what was built) takes it away."""

    sound: list[str]
    kind: str  # of collapse without the safeguard
    without: list[str] = field(default_factory=list)
    remove: Callable[[Any], None] = nothing
    steps: int = STEPS


# SimSiam keeps more directions at a small rate; at that of the CPU recipe the difference is there, and thinner.
SIMSIAM = ["method=simsiam", "optimizer.base_lr=1e-3"]
DINO = ["method=dino", "optimizer.base_lr=1e-3", "method.warmup_teacher_temperature=${method.teacher_temperature}"]
EXPERIMENTS = {
    "simsiam: stop-gradient": Experiment(SIMSIAM, "dimensional", remove=stop_gradient),
    "simsiam: predictor": Experiment(SIMSIAM, "dimensional", remove=predictor),
    "byol: predictor": Experiment(["method=byol"], "dimensional", remove=predictor),
    "vicreg: variance": Experiment(["method=vicreg"], "complete", ["method.loss.variance=0"]),
    "barlow twins: redundancy": Experiment(["method=barlow_twins"], "dimensional", ["method.loss.redundancy=0"]),
    "tico: covariance": Experiment(["method=tico"], "dimensional", ["method.loss.rho=0"], steps=300),
    "lejepa: SIGReg": Experiment(["method=lejepa"], "complete", ["method.weight=0"]),
}


class Listener(Callback):
    """Keeps what the method said of its last step."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.said = outputs["watch"]


def watched(
    folder: Path, overrides: list[str], change: Callable[[Any], None] = nothing, steps: int = STEPS
) -> dict[str, float]:
    """What the Collapse callback measured last, and what the method said."""
    watch, listener = Collapse(every_n_steps=10), Listener()
    short_run(folder, [*DATA, *overrides], steps, [watch, listener], change)
    return {name: float(value) for name, value in (watch._metrics | listener.said).items()}


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_without_its_safeguard_it_collapses(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    experiment = EXPERIMENTS[name]
    with caplog.at_level(logging.WARNING, logger="ssl_lightning"):
        sound = watched(tmp_path / "sound", experiment.sound, steps=experiment.steps)
        assert "collapse of the embeddings" not in caplog.text, sound
        changed = [*experiment.sound, *experiment.without]
        broken = watched(tmp_path / "broken", changed, experiment.remove, experiment.steps)
    assert f"{experiment.kind} collapse of the embeddings" in caplog.text, (sound, broken)
    measure = "embedding_rank" if experiment.kind == "dimensional" else "embedding_scale"
    assert broken[measure] < sound[measure] / 2


def test_swav_without_sinkhorn_collapses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes that are each image's own softmax: nothing asks for equal shares, and one answer for all is the best."""
    with caplog.at_level(logging.WARNING, logger="ssl_lightning"):
        sound = watched(tmp_path / "sound", ["method=swav"])
        assert "collapse of the embeddings" not in caplog.text, sound
        monkeypatch.setattr(swav, "sinkhorn", lambda scores, epsilon, iterations: (scores / epsilon).softmax(1))
        broken = watched(tmp_path / "broken", ["method=swav"])
    assert "complete collapse of the embeddings" in caplog.text, (sound, broken)
    assert broken["embedding_std"] < 0.1 < sound["embedding_std"]


def test_dino_without_centring_or_sharpening_collapses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Caron et al. 2021, section 5.3: without centring one prototype wins for all, without sharpening all are equal.

    A small convnet under DINO keeps few directions anyway, so that the rank of the sound run is near the warning's
    bound; how sure the teacher is of its answer tells the three apart (entropy, in nats, at most log K).
    """
    sound = watched(tmp_path / "sound", DINO, steps=300)
    most = math.log(1024)
    assert 0.4 * most < sound["teacher_entropy"] < 0.9 * most
    expected = {"center_momentum=1": (0.0, 0.1), "teacher_temperature=0.1": (0.98, 1.0)}
    for change, (low, high) in expected.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="ssl_lightning"):
            broken = watched(tmp_path / change, [*DINO, f"method.{change}"], steps=300)
        assert low * most <= broken["teacher_entropy"] <= high * most, (sound, broken)
        assert "dimensional collapse of the embeddings" in caplog.text, (sound, broken)
        assert broken["embedding_rank"] < sound["embedding_rank"]


def test_ijepa_without_its_teacher_collapses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing in its loss keeps images apart: targets that learn to be predictable become one and the same.

    A teacher that is a copy of the student at each step (momentum 0) is not yet enough for that: the copy has no
    gradient, as in SimSiam (docs/log.md). The mean tokens of an untrained ViT lie along few directions, so that the
    sound run is warned of once as dimensional, and of complete collapse it must never be.
    """
    ijepa = ["method=ijepa", "data.image_size=24", "method.predictor.dim=32", "method.predictor.heads=2"]
    with caplog.at_level(logging.WARNING, logger="ssl_lightning"):
        sound = watched(tmp_path / "sound", ijepa, steps=100)
        assert "complete collapse of the embeddings" not in caplog.text, sound
        broken = watched(tmp_path / "broken", ijepa, teacher, steps=100)
    assert "complete collapse of the embeddings" in caplog.text, (sound, broken)
    assert broken["embedding_scale"] < sound["embedding_scale"] / 10
