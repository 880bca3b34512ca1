"""The fine-tuner: its loss with mixup, its rates layer by layer, and what frozen means."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import Constant
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.finetuner import Finetuner
from ssl_lightning.tasks.regress import Regress

RECIPE = OptimizerRecipe(partial(SGD, momentum=0.9), base_lr=0.4, weight_decay=0.05, scheduler=Constant())


class Flat(nn.Module):
    """Pixels as features, through one weight matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5)
        self.out_dim = 5

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def batch(count: int = 6) -> Batch:
    return Batch([torch.randn(count, 3, 2, 2)], torch.arange(count) % 3, torch.arange(count))


def test_without_mixup_nothing_random_is_drawn() -> None:
    module = Finetuner(Flat(), Classify.of(3), RECIPE)
    given = batch()
    before = torch.random.get_rng_state()
    loss = module.training_step(given, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(loss, F.cross_entropy(module(given.views[0]), given.labels))


class FakeTrainer:
    accumulate_grad_batches, estimated_stepping_batches, num_training_batches, world_size = 2, 100, 20, 4

    class datamodule:
        batch_size = 16


def groups(module: Finetuner, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    monkeypatch.setattr(Finetuner, "trainer", FakeTrainer())
    return module.configure_optimizers()["optimizer"].param_groups


def test_rates_fall_layer_by_layer_from_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Finetuner(ConvNetSmall(4), Classify.of(3), RECIPE, layer_decay=0.5)
    peak = 0.4 * (16 * 4 * 2) / 256  # base rate x batch x devices x accumulation / 256
    rate = {id(p): group["lr"] for group in groups(module, monkeypatch) for p in group["params"]}  # type: ignore[attr-defined]
    assert len(rate) == len(list(module.parameters()))
    assert rate[id(module.head.weight)] == pytest.approx(peak)
    for name, depth in (("block", 1), ("conv3", 2), ("conv2", 3), ("conv1", 4)):
        for p in getattr(module.backbone, name).parameters():
            assert rate[id(p)] == pytest.approx(peak * 0.5**depth)


def test_biases_and_norms_have_no_weight_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Finetuner(ConvNetSmall(4), Classify.of(3), RECIPE)
    for group in groups(module, monkeypatch):
        for p in group["params"]:  # type: ignore[attr-defined]
            assert group["weight_decay"] == (0.05 if p.ndim > 1 else 0.0)


def test_frozen_trains_the_head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Finetuner(ConvNetSmall(4), Classify.of(3), RECIPE, frozen=True).train()
    module.on_train_epoch_start()
    assert not any(m.training for m in module.backbone.modules())
    assert module.head.training
    assert module.norm.training
    trained = [p for group in groups(module, monkeypatch) for p in group["params"]]  # type: ignore[attr-defined]
    assert {id(p) for p in trained} == {id(p) for p in module.head.parameters()}
    given = Batch([torch.randn(6, 3, 16, 16)], torch.arange(6) % 3, torch.arange(6))
    module.training_step(given, 0).backward()
    assert all(p.grad is None for p in module.backbone.parameters())
    assert all(p.grad is not None for p in module.head.parameters())


@pytest.mark.parametrize("wrong", [{"mixup": -0.1}, {"cutmix": -1.0}, {"label_smoothing": 1.0}])
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="mixup="):
        Finetuner(Flat(), Classify.of(3), RECIPE, **wrong)


@pytest.mark.parametrize("higher", [True, False])
def test_the_checkpoint_is_picked_in_the_task_s_own_direction(higher: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Regress, "main", "r2" if higher else "rmse")
    monkeypatch.setattr(Regress, "higher", higher)
    given = batch()._replace(labels=torch.arange(6.0)[:, None])
    module = Finetuner(Flat(), Regress().prepare(["age"], given.labels), RECIPE)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    picking = []
    for scale in (0.1, 10.0):  # outputs in standard deviations, the worse the larger
        module.head.load_state_dict({"weight": torch.zeros(1, 5), "bias": torch.tensor([scale])})
        module.on_validation_epoch_start()
        module.validation_step(given, 0)
        module.on_validation_epoch_end()
        picking.append(module.picking)
    assert picking[0][0] > picking[1][0]
