"""Gradient accumulation: each step's gradient is the mean over the batches it accumulates, an epoch's last one too."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.optim import SGD

from ssl_lightning.core.batch import Batch
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.finetuner import Finetuner
from tests.callbacks.toy import trainer_of
from tests.gloo import run_two
from tests.methods.harness import SmoothBackbone
from tests.stages.tiny_run import TinyData, two_views
from tests.tasks.test_finetuner import Constant

RATE = 0.1
RECIPE = OptimizerRecipe(partial(SGD), base_lr=RATE, weight_decay=0.0, scheduler=Constant())


class Meets(SSLMethod):
    """Pulls two views together: small, and without batch statistics."""

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        one, two = (self.backbone(view.double()) for view in batch.views)
        return self.output((one - two).square().mean() + one.square().mean(), one, one, two)


class Labels(Finetuner):
    """In float64."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return super().training_step(batch._replace(views=[view.double() for view in batch.views]), batch_idx)


class Watch(Callback):
    """The batches and the gradient of each optimizer step, and the weights it was taken at."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.batches: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer: Any, pl_module: LightningModule, optimizer: Any) -> None:
        grads = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.steps.append({"batches": self.batches, "grads": grads, "weights": weights})
        self.batches = []


def method_of(kind: str) -> LightningModule:
    torch.manual_seed(0)
    if kind == "pretrain":
        return Meets(SmoothBackbone(), optimizer=RECIPE).double()
    return Labels(SmoothBackbone(), Classify.of(3), RECIPE).double()


def train(kind: str, folder: Path, accumulate: int, batches: int, **trainer: Any) -> tuple[LightningModule, Watch]:
    method, watch = method_of(kind), Watch()
    data = TinyData(train=8 * batches, batch_size=8, num_workers=0, views=two_views())
    trainer = {"max_epochs": 2, "limit_val_batches": 0, "accumulate_grad_batches": accumulate, **trainer}
    trainer_of(folder, [watch], use_distributed_sampler=False, **trainer).fit(method, data)
    return method, watch


def mean_gradient(method: LightningModule, step: dict[str, Any]) -> dict[str, Tensor]:
    """Of the plain mean of the losses of a step's batches."""
    method.load_state_dict(step["weights"])
    method.zero_grad()
    losses = [method.training_step(batch, 0) for batch in step["batches"]]  # type: ignore[operator]
    torch.stack([loss["loss"] if isinstance(loss, dict) else loss for loss in losses]).mean().backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["pretrain", "labels"])
@pytest.mark.parametrize(
    ("accumulate", "batches", "limit", "windows"),
    [(4, 7, None, [4, 3]), (8, 3, None, [3]), (2, 4, None, [2, 2]), (3, 9, 4, [3, 1]), (1, 2, None, [1, 1])],
)
def test_each_step_s_gradient_is_the_mean_over_its_batches(
    kind: str, accumulate: int, batches: int, limit: int | None, windows: list[int], tmp_path: Path
) -> None:
    method, watch = train(kind, tmp_path, accumulate, batches, limit_train_batches=limit)
    assert [len(step["batches"]) for step in watch.steps] == 2 * windows  # epochs 0 and 1
    rate = RATE * 8 * min(accumulate, limit or batches) / 256
    assert method.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate, rel=1e-12)
    for step in watch.steps:
        for name, expected in mean_gradient(method, step).items():
            torch.testing.assert_close(step["grads"][name], expected, rtol=1e-12, atol=1e-14)


def two_ranks(rank: int, world_size: int, folder: str, kind: str) -> dict[str, Any]:
    """This rank's gradient at each step beside that of the mean loss over both ranks' batches."""
    import torch.distributed as dist
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    strategy = DDPStrategy(cluster_environment=LightningEnvironment(), process_group_backend="gloo")
    method, watch = train(kind, Path(folder), 4, 7 * 2, devices=2, strategy=strategy)
    found = []
    for step in watch.steps:
        expected = mean_gradient(method, step)
        for name, grad in expected.items():
            dist.all_reduce(grad)
            found.append(float((step["grads"][name] - grad / world_size).abs().max()))
    return {"windows": [len(step["batches"]) for step in watch.steps], "apart": max(found)}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["pretrain"])
def test_two_processes_too(kind: str, tmp_path: Path) -> None:
    for found in run_two(two_ranks, str(tmp_path), kind):
        assert found["windows"] == [4, 3, 4, 3]
        assert found["apart"] < 1e-14
