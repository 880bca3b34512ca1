"""What holds for each method of conf/method: two processes equal one, teachers are frozen copies, all state is kept."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_lightning.core import ddp
from tests.gloo import run_two
from tests.methods.harness import METHODS, batch_for, gradients, rows, step, tiny_method
from tests.two_ranks import count_sent, method_for

STEPS, DDP_STEPS = 8, 4


def train(name: str, steps: int, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """Plain SGD on the rank's share of `steps` global batches, with gradients averaged as DDP averages them."""
    method = tiny_method(name)
    losses: list[Tensor] = []
    share = 8 // world_size
    for n in range(steps):
        batch = rows(batch_for(name, 8, seed=n), rank * share, (rank + 1) * share)
        method.zero_grad()
        loss = step(method, batch, n)["loss"]
        loss.backward()
        losses.append(loss.detach().clone())
        for parameter in method.parameters():
            if parameter.grad is not None:
                if world_size > 1:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= world_size
                parameter.data -= 0.1 * parameter.grad
        for student, teacher in method.teacher_pairs():
            for s, t in zip(student.parameters(), teacher.parameters(), strict=True):
                t.data.lerp_(s.data, 0.1)
    if world_size > 1:
        for loss in losses:
            dist.all_reduce(loss)
            loss /= world_size
    return {"losses": torch.stack(losses), "gradients": gradients(method), "state": method.state_dict()}


def sent(name: str, rank: int, ranks: int) -> dict[str, Any]:
    """What DDP sends in a few steps on ranks whose buffers differ at the start, as if they had other seeds."""
    method = method_for(name, statistics=True)
    generator = torch.Generator().manual_seed(rank)
    with torch.no_grad():
        for buffer in method.buffers():
            if buffer.is_floating_point():
                buffer += torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype) * 1e-3
    method.setup("fit")
    ddp.send_once(method)
    method.forward = lambda batch, n: step(method, batch, n)["loss"]  # type: ignore[method-assign, assignment]
    model = DistributedDataParallel(method)
    sizes, share = count_sent(model), 8 // ranks
    for n in range(DDP_STEPS):
        model(rows(batch_for(name, 8, seed=n), rank * share, (rank + 1) * share), n).backward()
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter.data -= 0.1 * parameter.grad
        method.zero_grad()
    kept = sum(b.nbytes for m in method.modules() if isinstance(m, nn.BatchNorm1d) for b in m.buffers())
    return {"sent": sizes, "statistics": kept, "buffers": {key: b.clone() for key, b in method.named_buffers()}}


def train_all(rank: int, world_size: int) -> dict[str, Any]:
    return {name: {**train(name, STEPS, rank, world_size), "ddp": sent(name, rank, world_size)} for name in METHODS}


@pytest.fixture(scope="module")
def two_processes() -> list[dict[str, Any]]:
    """What each rank made of every method; one start of two processes for all of them."""
    return run_two(train_all)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_equal_one(name: str, two_processes: list[dict[str, Any]]) -> None:
    """Loss, parameter gradients, and every parameter and buffer (teacher, queue) after STEPS steps."""
    one, ranks = train(name, STEPS), [rank[name] for rank in two_processes]
    for two in ranks:
        torch.testing.assert_close(two["losses"], one["losses"], rtol=0, atol=1e-9)
        assert two["gradients"].keys() == one["gradients"].keys()
        for key, gradient in one["gradients"].items():
            torch.testing.assert_close(two["gradients"][key], gradient, rtol=0, atol=1e-9)
        for key, value in one["state"].items():
            torch.testing.assert_close(two["state"][key], value, rtol=0, atol=1e-9)
    for key, value in ranks[0]["state"].items():
        assert torch.equal(value, ranks[1]["state"][key]), key


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", METHODS)
def test_ddp_sends_batch_statistics_only_and_all_buffers_are_equal(
    name: str, two_processes: list[dict[str, Any]]
) -> None:
    left, right = (rank[name]["ddp"] for rank in two_processes)
    assert left["sent"] == right["sent"] == [left["statistics"]] * DDP_STEPS
    assert left["statistics"] > 0
    for key, value in left["buffers"].items():
        assert torch.equal(value, right["buffers"][key]), key


@pytest.mark.parametrize("name", METHODS)
def test_teachers_start_as_frozen_copies(name: str) -> None:
    method = tiny_method(name)
    trained = {id(p) for p in method.parameters() if p.requires_grad}
    for student, teacher in method.teacher_pairs():
        for s, t in zip(student.parameters(), teacher.parameters(), strict=True):
            assert torch.equal(s, t)
            assert s.data_ptr() != t.data_ptr()
            assert id(t) not in trained
    step(method, batch_for(name))["loss"].backward()
    for _, teacher in method.teacher_pairs():
        assert all(p.grad is None for p in teacher.parameters())
    assert bool(method.teacher_pairs()) == bool(method.configure_callbacks())


@pytest.mark.parametrize("name", METHODS)
def test_every_trained_parameter_gets_a_gradient(name: str) -> None:
    """A head that is built but not used crashes DDP and is a sign of a wrong step."""
    method = tiny_method(name)
    step(method, batch_for(name))["loss"].backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # The bias of a last layer cancels in some losses; everything else must move.
    assert [n for n in missing if not n.endswith("bias")] == []


@pytest.mark.parametrize("name", METHODS)
def test_output_feeds_the_callbacks(name: str) -> None:
    method = tiny_method(name)
    batch = batch_for(name, 8)
    output = step(method, batch)
    assert output["loss"].ndim == 0
    assert len(output["features"]) % 8 == 0
    assert output["features"].shape[1] == method.backbone.out_dim
    assert len(output["embeddings"]) == (8 if method.global_views == 1 else 16)
    assert not output["features"].requires_grad
    assert not output["embeddings"].requires_grad
    if method.features_are_readout:
        assert method.judged_by == "backbone"
        torch.testing.assert_close(output["features"][:8], method.embed(batch.views[0]))


@pytest.mark.parametrize("name", METHODS)
def test_the_state_dict_is_the_whole_state(name: str) -> None:
    """A fresh method that loads the state takes the same next step: nothing lives outside parameters and buffers."""
    first = tiny_method(name)
    for n in range(3):
        step(first, batch_for(name, seed=n), n)
    second = tiny_method(name)
    second.load_state_dict(first.state_dict())
    batch = batch_for(name, seed=9)
    assert torch.equal(first.training_step(batch, 3)["loss"], second.training_step(batch, 3)["loss"])
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_bf16_autocast_stays_close_to_float32(name: str) -> None:
    method = tiny_method(name).float()
    batch = batch_for(name, 8)
    batch = batch._replace(views=[view.float() for view in batch.views])
    full = step(method, batch)["loss"]
    method = tiny_method(name).float()
    with torch.autocast("cpu", torch.bfloat16):
        half = step(method, batch)["loss"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.03, atol=0.03)
