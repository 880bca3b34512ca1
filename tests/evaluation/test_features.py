"""Features come out in order, once each, in evaluation mode, from one rank or two."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.features import extract
from tests.gloo import run_two


class FakeBatch(NamedTuple):
    views: list[Tensor]
    labels: Tensor
    indices: Tensor


def image(indices: Tensor) -> Tensor:
    """An image that tells its index."""
    return indices.float()[:, None, None, None].expand(-1, 3, 2, 2)


def loader(*batches: list[int]) -> list[FakeBatch]:
    return [FakeBatch([image(i)], i % 3 - 1, i) for i in map(torch.tensor, batches)]


class Method(nn.Module):
    """A student in training mode beside a frozen teacher in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(12))
        self.teacher = nn.Dropout(0.5).eval()

    def embed(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return self.student(x)


def test_sorted_unique_in_evaluation_mode_and_each_flag_comes_back() -> None:
    method = Method()
    flags = [m.training for m in method.modules()]
    before = {key: value.clone() for key, value in method.state_dict().items()}
    found = extract(method.embed, loader([4, 1], [3, 0, 4], [2]))
    assert found.indices.tolist() == [0, 1, 2, 3, 4]
    assert found.labels.tolist() == [-1, 0, 1, -1, 0]
    expected = torch.arange(5.0)[:, None].expand(5, 12) / (1 + 1e-5) ** 0.5  # running mean 0 and variance 1
    torch.testing.assert_close(found.x, expected)
    assert found.x.dtype == torch.float32
    assert [m.training for m in method.modules()] == flags
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key])


def test_flags_come_back_after_an_error() -> None:
    method = Method()
    with pytest.raises(RuntimeError):
        extract(method.student, [FakeBatch([torch.zeros(2, 5)], torch.zeros(2).long(), torch.arange(2))])
    assert method.student.training


def test_features_can_be_trained_on_and_filtered() -> None:
    found = extract(nn.Flatten(), loader([0, 1, 2, 3]))
    labelled = found.labelled()
    assert labelled.indices.tolist() == [1, 2]
    weight = torch.ones(12, requires_grad=True)
    (labelled.x @ weight).sum().backward()  # not inference tensors
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0] * 12
    assert len(found) == 4


def test_autocast_type_is_used() -> None:
    seen: list[torch.dtype] = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert extract(net, loader([0]), dtype=torch.bfloat16).x.dtype == torch.float32
    extract(net, loader([0]))
    assert seen == [torch.bfloat16, torch.float32]


def test_no_image_is_refused() -> None:
    with pytest.raises(UserError, match="no image"):
        extract(nn.Flatten(), [])


def parts(rank: int, world_size: int, splits: list[list[list[list[int]]]]) -> list[list[Tensor]]:
    return [
        [f.x, f.labels, f.indices]
        for net in (nn.Flatten(), nn.Flatten(2))  # (B, D), and (B, L, K) as of a task whose outputs are sequences
        for f in [extract(net, loader(*split[rank])) for split in splits]
    ]


def test_two_ranks_see_the_whole_split() -> None:
    unequal = [[[5, 0], [3, 1], [7]], [[2, 4], [6, 0]]]  # 0 is seen twice
    one_sided = [[], [[1, 0]]]
    nets = (nn.Flatten(), nn.Flatten(2))
    whole = [extract(net, loader(list(range(count)))) for net in nets for count in (8, 2)]
    assert whole[3].x.shape == (2, 3, 4)
    for rank in run_two(parts, [unequal, one_sided]):
        for (x, labels, indices), expected in zip(rank, whole, strict=True):
            assert torch.equal(x, expected.x)
            assert torch.equal(labels, expected.labels)
            assert torch.equal(indices, expected.indices)
