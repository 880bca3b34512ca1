"""What a step draws belongs to its epoch, what an optimizer gets to the whole run: nothing is tried at epoch 0 only."""

from types import SimpleNamespace

import pytest
import torch

from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.methods.dino import DINO
from ssl_lightning.methods.ibot import IBOT
from tests.methods.harness import METHODS, at, batch_for, config_of, step, tiny_method

# Those that hide, cut or cluster at random; LeJEPA draws anew at each step. The others draw nothing of their own.
DRAWN = ("cpc", "data2vec", "dinov2", "ibot", "ijepa", "jigsaw", "lejepa", "mae", "msn", "relative_position", "simmim")


def loss(name: str, epoch: int) -> float:
    """Of a fresh method's first step, were that in this epoch."""
    method = at(tiny_method(name), epoch)
    if isinstance(method, DINO | IBOT):
        method.temperatures = (0.5, 0.5, 0)
    return step(method, batch_for(name))["loss"].item()


@pytest.mark.parametrize("name", METHODS)
def test_draws_differ_from_epoch_to_epoch_and_nothing_else_does(name: str) -> None:
    if name == "deepcluster_v2":
        pytest.skip("its clusters are those of the memory; test_joint_methods.py has their draws")
    first, second, again = loss(name, 0), loss(name, 1), loss(name, 1)
    assert second == again
    assert (first != second) == (name in DRAWN)


@pytest.mark.parametrize("name", ["simclr", "simmim"])
def test_the_rate_is_for_all_images_of_a_step(name: str) -> None:
    """Batch x processes x batches accumulated, each of another size, and steps that are not batches."""
    method = tiny_method(name).float()
    method.optimizer_recipe = instantiate(config_of(name)["optimizer"])
    method._trainer = SimpleNamespace(
        datamodule=SimpleNamespace(batch_size=16),
        world_size=3,
        accumulate_grad_batches=5,
        num_training_batches=50,
        estimated_stepping_batches=40,
    )
    built = method.configure_optimizers()
    base = method.optimizer_recipe.base_lr
    expected = base * 16 * 3 * 5 / 256
    assert [group["initial_lr"] for group in built["optimizer"].param_groups] == pytest.approx([expected] * 2)
    schedule = built["lr_scheduler"]["scheduler"]
    warmup = method.optimizer_recipe.scheduler.warmup_steps(40, 10)
    assert schedule.lr_lambdas[0](warmup) == 1
    assert torch.isclose(torch.tensor(schedule.lr_lambdas[0](39)), torch.tensor(0.0), atol=1e-6)


def test_ijepa_places_its_blocks_anew_in_each_epoch() -> None:
    """Their size alone, which is drawn for a step, would let a step's loss differ."""

    def targets(epoch: int) -> torch.Tensor:
        method = at(tiny_method("ijepa"), epoch)
        draw_for = method.draw_for

        def same_size(indices: torch.Tensor, n: int, stream: int = 0, epoch: int | None = None) -> torch.Tensor:
            return torch.full((len(indices), n), 0.5) if stream else draw_for(indices, n, stream, epoch)

        method.draw_for = same_size
        return method.blocks(batch_for("ijepa"), step=0)[1]

    first, second = targets(0), targets(1)
    assert first.shape == second.shape
    assert not torch.equal(first, second)
