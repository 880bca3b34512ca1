"""The transformer of sequences, put together by hand."""

import pytest
import torch
from torch import Tensor

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.sincos import sincos_positions
from ssl_lightning.models.transformer1d import Transformer1d
from ssl_lightning.optim.param_groups import block_numbers
from ssl_lightning.runs.checkpoint import save_backbone

SIZES = {"length": 24, "patch_size": 3, "dim": 12, "depth": 2, "heads": 2, "in_channels": 2}


def network(**changes: object) -> Transformer1d:
    torch.manual_seed(0)
    net = Transformer1d(**SIZES | changes)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net.double().eval()


def sequences(length: int = 24) -> Tensor:
    return torch.randn(3, 2, length, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def naive_tokens(net: Transformer1d, x: Tensor, places: list[int], positions: Tensor) -> Tensor:
    """One sequence's (C, L) visible patches."""
    kernel, bias = net.patch_embed.proj.weight, net.patch_embed.proj.bias
    rows = [] if net.cls_token is None else [net.cls_token[0, 0] + net.pos_embed[0, 0]]
    for place in places:
        rows.append((kernel * x[:, 3 * place : 3 * place + 3]).sum((1, 2)) + bias + positions[place])
    return net.norm(net.blocks(torch.stack(rows)[None]))[0]


@pytest.mark.parametrize("readout", ["cls", "mean", "both"])
def test_tokens_and_readout(readout: str) -> None:
    net, x = network(readout=readout), sequences()
    visible = torch.tensor([[0, 3, 7], [6, 1, 2], [4, 5, 6]])
    whole, found = net.tokens(x), net.tokens(x, visible)
    for row in range(3):
        positions = net.pos_embed[0, 1:]
        torch.testing.assert_close(whole[row], naive_tokens(net, x[row], list(range(8)), positions), atol=1e-12, rtol=0)
        expected = naive_tokens(net, x[row], visible[row].tolist(), positions)
        torch.testing.assert_close(found[row], expected, atol=1e-12, rtol=0)
    parts = {"cls": [whole[:, 0]], "mean": [whole[:, 1:].mean(1)]}
    parts["both"] = parts["cls"] + parts["mean"]
    torch.testing.assert_close(net(x), torch.cat(parts[readout], 1), atol=0, rtol=0)
    assert net(x).shape == (3, net.out_dim)


@pytest.mark.parametrize("length", [12, 48])
def test_other_lengths_get_positions_along_a_line(length: int) -> None:
    net, x = network(), sequences(length)
    patches = length // 3
    rows = []
    for place in range(patches):  # between the middles of the old places, held at both ends
        at = min(max((place + 0.5) * 8 / patches - 0.5, 0), 7)
        low, high = int(at), min(int(at) + 1, 7)
        rows.append((1 - at + low) * net.pos_embed[0, 1 + low] + (at - low) * net.pos_embed[0, 1 + high])
    expected = naive_tokens(net, x[0], list(range(patches)), torch.stack(rows))
    torch.testing.assert_close(net.tokens(x)[0], expected, atol=1e-12, rtol=0)


def test_attention_is_that_of_the_class_token_in_the_last_block() -> None:
    net, x = network(), sequences()
    state = net.blocks[0](net._pos_embed(net.patch_embed(x)))
    attn = net.blocks[1].attn
    q, k, _ = attn.qkv(net.blocks[1].norm1(state)).chunk(3, 2)
    for head in range(2):
        part = slice(6 * head, 6 * head + 6)
        weights = (q[:, :1, part] @ k[..., part].transpose(1, 2) / 6**0.5).softmax(2)[:, 0, 1:]
        torch.testing.assert_close(net.attention(x)[:, head], weights, atol=1e-12, rtol=0)


def test_fixed_positions_and_a_network_of_patches_alone() -> None:
    net = Transformer1d(**SIZES, positions="sincos", class_token=False)
    assert torch.equal(net.pos_embed[0], sincos_positions((8,), 12))
    assert not net.pos_embed.requires_grad
    assert net.tokens(sequences().float()).shape == (3, 8, 12)
    assert not net.has_attention


def test_stochastic_depth_rises() -> None:
    blocks = Transformer1d(**SIZES | {"depth": 3}, drop_path=0.2).blocks
    assert [round(getattr(block.drop_path1, "drop_prob", 0.0), 6) for block in blocks] == [0, 0.1, 0.2]


def test_each_block_has_its_number() -> None:
    numbers = block_numbers(network())
    assert numbers["cls_token"] == numbers["patch_embed.proj.weight"] == 0
    assert numbers["blocks.0.attn.qkv.weight"] == 1
    assert numbers["norm.weight"] == numbers["blocks.1.attn.qkv.weight"] == 2


def test_it_is_exported_and_loaded(tmp_path) -> None:
    net = network().float()
    node = {"_target_": "ssl_lightning.models.transformer1d.Transformer1d", **SIZES}
    found = load_backbone(save_backbone(net, node, tmp_path)).eval()
    assert torch.equal(found(sequences().float()), net(sequences().float()))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="patches of 5 samples do not divide sequences of 24"):
        network(patch_size=5)
    with pytest.raises(UserError, match="5 heads do not divide tokens 12 wide"):
        network(heads=5)
    with pytest.raises(UserError, match="read by its patches"):
        network(class_token=False, readout="cls")
    with pytest.raises(UserError, match="views of 48 samples for a transformer of 24; set"):
        network().check_size(48, own=True)
    with pytest.raises(UserError, match="patches of 3 samples do not divide views of 47 samples"):
        network().check_size(47)
