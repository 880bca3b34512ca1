"""Supervised training against a loop in float64, in one process and in two; absent labels; a run that learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from ssl_lightning.cli import run as build
from ssl_lightning.cli.compose import compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.methods.supervised import Supervised
from tests.gloo import run_two
from tests.methods.harness import SmoothBackbone, random_batch, rows, tiny_method

LABELS = torch.tensor([0, 2, -1, 1, -1, -1, -1, 2])  # more on the first rank than on the second


def naive(method: Any, views: list[Tensor], labels: Tensor, smoothing: float = 0.0) -> Tensor:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for view in views:
        for x, label in zip(view, labels.tolist(), strict=True):
            if label < 0:
                continue
            scores = method.backbone(x[None])[0] @ method.head.weight.T + method.head.bias
            shares = torch.full((3,), smoothing / 3, dtype=torch.float64)
            shares[label] += 1 - smoothing
            total, count = total - (shares * (scores - scores.exp().sum().log())).sum(), count + 1
    return total / count


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_cross_entropy_of_all_views_that_have_a_label(smoothing: float) -> None:
    method: Any = tiny_method("supervised", label_smoothing=smoothing)
    batch = random_batch(8)._replace(labels=LABELS)
    output = method.training_step(batch, 0)
    wanted = naive(method, batch.views, LABELS, smoothing)
    torch.testing.assert_close(output["loss"], wanted, rtol=1e-13, atol=0)
    parameters = list(method.parameters())
    for mine, other in zip(
        torch.autograd.grad(output["loss"], parameters), torch.autograd.grad(wanted, parameters), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-14)
    assert output["features"].shape == (16, 6)


def on_rank(rank: int, world_size: int) -> list[Tensor]:
    """Loss and gradients of the rank's half, averaged over ranks as DDP does."""
    method: Any = tiny_method("supervised")
    share = 8 // world_size
    batch = rows(random_batch(8)._replace(labels=LABELS), rank * share, (rank + 1) * share)
    loss = method.training_step(batch, 0)["loss"]
    found = [loss.detach().clone(), *torch.autograd.grad(loss, list(method.parameters()))]
    for value in found if world_size > 1 else []:
        dist.all_reduce(value)
        value /= world_size
    return found


@pytest.mark.long
def test_two_ranks_of_unequally_many_labels_equal_one_process() -> None:
    one = on_rank(0, 1)
    for two in run_two(on_rank):
        torch.testing.assert_close(two, one, rtol=0, atol=1e-14)


def test_a_batch_without_a_label_moves_nothing() -> None:
    method: Any = tiny_method("supervised")
    batch = random_batch(4)._replace(labels=torch.full((4,), -1))
    loss = method.training_step(batch, 0)["loss"]
    assert float(loss.detach()) == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, list(method.parameters())))


def test_the_head_is_drawn_from_the_method_s_own_seed() -> None:
    heads = []
    for number in (0, 1):
        torch.manual_seed(number)
        backbone, before = SmoothBackbone(), torch.random.get_rng_state()
        method = Supervised(backbone, classes=3, seed=4)
        heads.append(method.head.weight)  # type: ignore[union-attr]
        del before
    assert torch.equal(*heads)
    other = Supervised(SmoothBackbone(), classes=3, seed=5).head
    assert not torch.equal(heads[0], other.weight)  # type: ignore[union-attr]


WORDS = ("method=supervised", "data.batch_size=32", "backbone.width=8", "trainer=cpu", "data.num_workers=0")


def test_data_without_labels_are_refused_in_one_line(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(8):
        Image.new("RGB", (32, 32), (i * 20, 0, 0)).save(tmp_path / f"{i}.png")
    words = [*WORDS, "data=folder", f"data.root={tmp_path}", "data.image_size=32", "data.batch_size=2"]
    with pytest.raises(UserError, match="supervised learns from one class for each item, and this data has none"):
        build.run(compose([*words, f"runs_dir={tmp_path}/runs", "name=x"]), tables=False)


def test_classes_have_to_be_told_where_no_data_of_ours_tells_them() -> None:
    method = Supervised(SmoothBackbone())
    with pytest.raises(UserError, match="does not know how many classes there are; pass classes="):
        method.setup("fit")


@pytest.mark.slow
def test_it_learns_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Twice as far in two runs as in one: the head that the data sized is taken up again."""
    small = [*WORDS, "data.size=640", "data.test_size=300", "stage.judge=false", "optimizer.base_lr=0.4"]
    build.run(compose([*small, "trainer.max_epochs=2", f"runs_dir={tmp_path}", "name=a"]), tables=False)
    state = torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["head.weight"].shape == (10, 32)
    build.run(compose([*small, "trainer.max_epochs=3", f"runs_dir={tmp_path}", "name=a"]), tables=False)
    again = torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)
    assert again["epoch"] >= 2
    assert not torch.equal(again["state_dict"]["head.weight"], state["head.weight"])
    rows = (tmp_path / "a" / "metrics.csv").read_text()
    assert "train/top1" in rows.splitlines()[0]
