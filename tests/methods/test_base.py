"""What every method inherits: the optimizer for runs of any kind of length, and views of several sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.cli.run import compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.methods.base import SSLMethod
from tests.callbacks.toy import trainer_of
from tests.methods.harness import SmoothBackbone, at, random_batch, tiny_method
from tests.stages.tiny_run import TinyData, two_views

DRAWN = [12185248.0, 11491688.0, 16774580.0]  # of seed 5, epoch 0, item 10, in steps of 2^-24


def fit(folder: Path, **length: Any) -> Any:
    method = tiny_method("simclr").float()
    method.optimizer_recipe = instantiate(compose(["method=simclr", "data=cifar10"]).values["optimizer"])
    trainer = trainer_of(folder, [], limit_val_batches=0, **length)
    trainer.fit(method, TinyData(views=two_views()))
    return trainer


@pytest.mark.parametrize("length", [{"max_epochs": 2}, {"max_steps": 3, "max_epochs": -1}, {"max_steps": 3}])
def test_a_run_is_as_long_as_epochs_or_steps_say(tmp_path: Path, length: dict[str, int]) -> None:
    trainer = fit(tmp_path, **length)
    assert trainer.global_step == length.get("max_steps", 2 * (90 // 32))
    assert trainer.optimizers[0].param_groups[0]["lr"] < 0.4 * 32 / 256  # the cosine has begun to fall


def test_a_run_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no end; set trainer.max_epochs or trainer.max_steps"):
        fit(tmp_path, max_epochs=-1)


def test_views_of_one_size_pass_the_backbone_together() -> None:
    method, batch = tiny_method("swav"), random_batch(3)
    views = [*batch.views, *(view[:, :, :2, :2] for view in batch.views)]
    calls: list[int] = []
    method.backbone.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    features = method.features_of(views)
    assert calls == [6, 6]
    for view, found in zip(views, features):
        torch.testing.assert_close(found, method.backbone(view))


def test_what_a_method_draws_is_a_function_of_seed_epoch_index_and_stream() -> None:
    """The numbers themselves stand here: those of a run from before must not change."""
    method = SSLMethod(SmoothBackbone(), seed=5)
    batch = random_batch(6)._replace(indices=torch.arange(10, 16))
    first = method.draw(batch, 3)
    assert first.shape == (6, 3)
    assert torch.equal(first, uniform(5, 0, batch.indices, 1000, 3))
    assert (first[0] * 2**24).tolist() == DRAWN
    at(method, 1)
    assert torch.equal(method.draw(batch, 3), uniform(5, 1, batch.indices, 1000, 3))
    assert torch.equal(method.draw(batch, 3, epoch=0), first)  # pictures: whatever the epoch
    assert torch.equal(method.draw(batch, 3, stream=1), uniform(5, 1, batch.indices, 1001, 3))
    assert torch.equal(method.draw(batch._replace(indices=batch.indices[2:4]), 3, epoch=0), first[2:4])
    assert torch.equal(method.draw_for(torch.tensor([7]), 2, 1), uniform(5, 1, torch.tensor([7]), 1001, 2))
    assert not torch.equal(SSLMethod(SmoothBackbone(), seed=6).draw(batch, 3), first)
