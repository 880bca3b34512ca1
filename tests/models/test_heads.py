"""The MLP heads: which layers each paper's variant has, and what they compute."""

import pytest
import torch
from torch import nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.models.heads import MLP


def layers(head: nn.Module) -> list[str]:
    """The layers in words: a linear layer with '+b' when it has a bias, BatchNorm with '-affine' when it has none."""
    words = []
    for m in head.children():
        if isinstance(m, nn.Linear):
            words.append(f"{m.in_features}>{m.out_features}" + ("+b" if m.bias is not None else ""))
        elif isinstance(m, nn.BatchNorm1d):
            words.append("bn" if m.affine else "bn-affine")
        else:
            words.append(type(m).__name__.lower())
    return words


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["9>8", "bn", "relu", "8>4+b"]),  # BYOL; SimCLR with BatchNorm
        ({"norm": False}, ["9>8+b", "relu", "8>4+b"]),  # MoCo v2
        ({"num_layers": 3, "bias": False}, ["9>8", "bn", "relu", "8>8", "bn", "relu", "8>4"]),  # VICReg
        (
            {"num_layers": 3, "last_norm": True, "last_norm_affine": False},  # SimSiam
            ["9>8", "bn", "relu", "8>8", "bn", "relu", "8>4", "bn-affine"],
        ),
        ({"last_norm": True}, ["9>8", "bn", "relu", "8>4", "bn"]),
        ({"num_layers": 1}, ["9>4+b"]),
        ({"num_layers": 3, "activation": "gelu"}, ["9>8", "bn", "gelu", "8>8", "bn", "gelu", "8>4+b"]),  # MSN
    ],
)
def test_variants(arguments: dict[str, object], expected: list[str]) -> None:
    head = MLP(9, hidden_dim=8, out_dim=4, **arguments)
    assert layers(head) == expected
    assert head.out_dim == 4
    assert head(torch.randn(5, 9)).shape == (5, 4)


def test_value_by_hand() -> None:
    head = MLP(3, hidden_dim=5, out_dim=2).double()
    first, norm, _, last = head.children()
    x = torch.randn(7, 3, dtype=torch.float64)
    hidden = x @ first.weight.T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(head(x), hidden.clamp(min=0) @ last.weight.T + last.bias)


def test_no_layers_is_refused() -> None:
    with pytest.raises(UserError, match="num_layers=0"):
        MLP(8, num_layers=0)
