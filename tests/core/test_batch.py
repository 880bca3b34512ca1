"""`Batch` and its words: roles, tensors and padded views that move, stack and split."""

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

from ssl_lightning.core.batch import Batch, Padded, chunk, concat, stack_shape
from ssl_lightning.core.errors import UserError
from tests.methods.harness import random_batch, step, tiny_method


def padded(lengths: list[int], longest: int, dim: int = 2) -> Padded:
    """Items of ones, rubbish behind them."""
    x = torch.full((len(lengths), longest, dim), float("nan"))
    for row, length in enumerate(lengths):
        x[row, :length] = row + 1.0
    return Padded(x, torch.tensor(lengths))


def test_roles_say_what_is_global_whatever_the_sizes() -> None:
    views = [torch.zeros(2, 3, s, s) for s in (16, 32, 16)]
    batch = Batch(views, torch.zeros(2), torch.zeros(2), ("local", "global", "global"))
    assert [v.shape[-1] for v in batch.global_views] == [32, 16]
    assert [v.shape[-1] for v in batch.local_views] == [16]
    assert batch.views_of("masked") == []


def test_without_roles_all_are_global() -> None:
    batch = Batch([torch.zeros(2, 3, s, s) for s in (32, 16)], torch.zeros(2), torch.zeros(2))
    assert len(batch.global_views) == 2
    assert batch.local_views == []


def test_there_is_a_role_for_each_view() -> None:
    with pytest.raises(ValueError, match="zip"):
        _ = Batch([torch.zeros(2, 1)] * 2, torch.zeros(2), torch.zeros(2), ("global",)).global_views


def test_a_batch_of_any_views_moves_as_a_whole() -> None:
    batch = Batch([torch.zeros(2, 3), padded([1, 2], 3)], torch.zeros(2), torch.arange(2), ("global", "local"))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.roles == ("global", "local")
    assert {str(moved.views[0].device), str(moved.views[1].device), str(moved.views[1].lengths.device)} == {"meta"}


def test_tensors_stack_and_split_as_torch_does() -> None:
    views = [torch.randn(3, 2, 4) for _ in range(2)]
    stacked = concat(views)
    assert torch.equal(stacked, torch.cat(views))
    assert all(map(torch.equal, chunk(stacked, 2), views))
    assert stack_shape(views[0]) == (2, 4)


def test_padded_views_stack_to_the_longest_and_split_again() -> None:
    one, other = padded([2, 3], 3), padded([5, 0], 5)
    stacked = concat([one, other])
    assert stacked.x.shape == (4, 5, 2)
    assert stacked.lengths.tolist() == [2, 3, 5, 0]
    assert len(stacked) == 4
    assert not stacked.x[:2, 3:].any()
    for part, view in zip(chunk(stacked, 2), (one, other), strict=True):
        assert torch.equal(part.lengths, view.lengths)
        assert torch.equal(part.x[part.valid], view.x[view.valid])  # no item has lost or won a place
    assert stacked.valid.sum(1).tolist() == stacked.lengths.tolist()
    assert stack_shape(one) == stack_shape(other) == (2,)


def test_padded_views_of_flat_items() -> None:
    tokens = [Padded(torch.tensor([[1, 2]]), torch.tensor([2])), Padded(torch.tensor([[3, 4, 5]]), torch.tensor([3]))]
    stacked = concat(tokens)
    assert stacked.x.tolist() == [[1, 2, 0], [3, 4, 5]]
    assert stacked.x.dtype == torch.int64


def test_padded_detach_rows_and_dtype() -> None:
    x = torch.randn(3, 4, 2, requires_grad=True)
    view = Padded(x, torch.tensor([1, 4, 2]))
    assert not view.detach().x.requires_grad
    assert view[1:].lengths.tolist() == [4, 2]
    assert view[torch.tensor([2, 0])].lengths.tolist() == [2, 1]
    half = view.to(torch.float16)
    assert half.x.dtype == torch.float16
    assert half.lengths.dtype == torch.int64


def test_gradients_reach_the_items_that_were_padded() -> None:
    one, other = (torch.randn(1, n, 2, requires_grad=True) for n in (2, 3))
    concat([Padded(one, torch.tensor([2])), Padded(other, torch.tensor([3]))]).x.square().sum().backward()
    for x in (one, other):
        torch.testing.assert_close(x.grad, 2 * x.detach())


def test_a_method_refuses_several_sizes_without_roles() -> None:
    method, batch = tiny_method("swav"), random_batch(4)
    batch = batch._replace(views=[*batch.views, batch.views[0][:, :, :2, :2]])
    with pytest.raises(UserError, match="has no roles"):
        method.training_step(batch, 0)  # type: ignore[operator]
    assert method.batch_of(batch._replace(roles=("global", "global", "local")), 0).local_views


class MeanOfItems(nn.Module):
    """Padded items (B, L, 2) -> features (B, 2), of their own places alone."""

    out_dim = 2

    def forward(self, view: Padded) -> torch.Tensor:
        inside = view.valid[..., None]
        return view.x.masked_fill(~inside, 0.0).sum(1) / view.lengths[:, None]


@pytest.mark.parametrize("name", ["simclr", "supcon", "vicreg"])
def test_a_method_takes_items_of_different_lengths(name: str) -> None:
    """Its loss is that of items given one by one, whatever stands behind them."""
    method = tiny_method(name, backbone=MeanOfItems())
    views = [padded([2, 3, 1, 4], 4), padded([5, 1, 2, 2], 6)]
    views = [
        Padded(torch.randn_like(v.x.nan_to_num()).double().where(v.valid[..., None], v.x), v.lengths) for v in views
    ]
    labels = torch.tensor([0, 0, 1, 1])
    found = step(method, Batch(views, labels, torch.arange(4)))["loss"]
    means = [torch.stack([x[:n].mean(0) for x, n in zip(v.x, v.lengths.tolist(), strict=True)]) for v in views]
    method.backbone = nn.Identity()
    expected = step(method, Batch(means, labels, torch.arange(4)))["loss"]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert torch.isfinite(found)
