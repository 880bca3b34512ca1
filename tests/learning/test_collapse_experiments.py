"""The field's classic experiment: take a method's safeguard away, and it collapses, and the Collapse callback says so.

Each pair of runs differs in the safeguard alone. Kept out of `make test` for its length: `make test-learning`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning.build import compose
from ssl_lightning.callbacks.collapse import Collapse
from ssl_lightning.callbacks.reseed import Reseed
from ssl_lightning.instantiate import instantiate
from ssl_lightning.methods import swav as swav_method
from tests.callbacks.toy import trainer_of

pytestmark = pytest.mark.learning
STEPS = 150
MOMENTA = ("momentum", "final_momentum")
QUICK = ["backbone.width=16", "data.size=4800", "data.test_size=64", "data.batch_size=64", "scheduler=constant"]


def train(folder: Path, overrides: list[str], change: Callable[[Any], None] = lambda method: None) -> dict[str, float]:
    """Trains on `shapes`; returns what the Collapse callback measured last."""
    config = compose([*QUICK, *overrides]).values
    torch.manual_seed(0)
    backbone, recipe = instantiate(config["backbone"]), instantiate(config["optimizer"])
    method = instantiate(config["method"], backbone=backbone, optimizer=recipe)
    change(method)
    watch = Collapse(every_n_steps=10, patience=3)
    trainer = trainer_of(folder, [Reseed(0), watch], max_steps=STEPS, max_epochs=-1, limit_val_batches=0)
    trainer.fit(method, instantiate(config["data"]))
    return {key: float(value) for key, value in watch.step_metrics(trainer).items()}


def without_stop_gradient(method: Any) -> None:
    """SimSiam's loss on projections that keep their gradient: eq. 1 of the paper without its last line."""

    def loss(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return 2 - 2 * nn.functional.cosine_similarity(p, z, dim=1).mean()

    def step(batch: Any, batch_idx: int) -> Any:
        x1, x2 = batch.global_views
        f1, f2 = method.backbone(x1), method.backbone(x2)
        z1, z2 = method.projector(f1), method.projector(f2)
        value = (loss(method.predictor(z1), z2) + loss(method.predictor(z2), z1)) / 4
        return method.output(value, torch.cat([f1, f2]), z1, z2)

    method.training_step = step


def without_predictor(method: Any) -> None:
    """BYOL whose student is held against its teacher directly; the teacher is the student itself (momentum 0)."""
    method.predictor = nn.Identity()


def with_plain_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """SwAV whose codes are each sample's own softmax: nothing asks for equal shares."""
    monkeypatch.setattr(swav_method, "sinkhorn", lambda scores, epsilon, iterations: (scores / epsilon).softmax(1))


# what is taken away -> (overrides of the healthy run, further overrides without the safeguard, a change to the method)
EXPERIMENTS: dict[str, tuple[list[str], list[str], Callable[[Any], None]]] = {
    "simsiam: stop-gradient": (["method=simsiam"], [], without_stop_gradient),
    "byol: predictor": (["method=byol"], [f"method.teacher.{m}=0" for m in MOMENTA], without_predictor),
    "vicreg: variance": (["method=vicreg"], ["method.loss.variance=0"], lambda method: None),
    "tico: covariance": (["method=tico"], ["method.loss.rho=0"], lambda method: None),
    "lejepa: SIGReg": (["method=lejepa"], ["method.weight=0"], lambda method: None),
}


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_without_its_safeguard_it_collapses(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    healthy, without, change = EXPERIMENTS[name]
    with caplog.at_level(logging.WARNING, logger="ssl_lightning"):
        sound = train(tmp_path / "sound", healthy)
        assert "complete collapse" not in caplog.text, sound
        broken = train(tmp_path / "broken", [*healthy, *without], change)
    assert "complete collapse of the embeddings" in caplog.text, (sound, broken)
    assert broken["embedding_std"] < 0.1 < sound["embedding_std"]


def test_swav_without_sinkhorn_uses_few_prototypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["method=swav", "method.queue_size=0", "method.prototypes=50"]
    sound = train(tmp_path / "sound", overrides)
    with_plain_softmax(monkeypatch)
    broken = train(tmp_path / "broken", overrides)
    assert broken["embedding_std"] < 0.1 < sound["embedding_std"]
