"""The context network of predictive coding is causal over rows."""

import pytest
import torch

from ssl_lightning.models.context import RowContext


@pytest.mark.parametrize("columns", [1, 4])
def test_a_row_sees_itself_and_what_is_above(columns: int) -> None:
    """Every row at and above it, as far up as there are blocks, and none below; one column is a sequence."""
    torch.manual_seed(0)
    net = RowContext(6, 64, depth=2).double()
    x = torch.randn(4, 6, 5, columns, dtype=torch.float64, requires_grad=True)
    for row in range(5):
        (gradient,) = torch.autograd.grad(net(x)[:, :, row].square().sum(), x)
        seen = gradient.abs().sum((0, 1, 3)) > 0
        assert seen.tolist() == [row - 2 <= other <= row for other in range(5)]
