"""ViT: timm's own network and weights, with patches that are really dropped or really hidden."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import DropPath
from torch import Tensor

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.decoder import MAEDecoder
from ssl_lightning.models.predictor import TokenPredictor
from ssl_lightning.models.vit import ViT, attention_pictures, sincos_positions
from ssl_lightning.runs.checkpoint import save_backbone
from tests.losses import reference_masked as paper

SIZES = {"image_size": 16, "patch_size": 4, "dim": 16, "depth": 3, "heads": 2}
NODE = {"_target_": "ssl_lightning.models.vit.ViT", **SIZES}


def vit(**changes) -> ViT:
    torch.manual_seed(0)
    net = ViT(**{**SIZES, **changes})
    for parameter in net.parameters():  # positions and class token start so small that a mistake would not show
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net.double().eval()


def images(size: int = 16, batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def timms(readout: str, **changes) -> torch.nn.Module:
    pool = {"cls": "token", "mean": "avg"}[readout]
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, global_pool=pool, fc_norm=False, **{**sizes, **changes}
    )


@pytest.mark.parametrize("readout", ["cls", "mean"])
def test_timm_loads_an_exported_file_and_says_the_same(readout: str, tmp_path: Path) -> None:
    ours = vit(readout=readout).float()
    save_backbone(ours, {**NODE, "readout": readout}, tmp_path)
    theirs = timms(readout).eval()
    theirs.load_state_dict(load_file(tmp_path / "backbone.safetensors"))
    x = images().float()
    torch.testing.assert_close(theirs(x), ours(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(load_backbone(tmp_path / "backbone.safetensors")(x), ours(x), atol=0, rtol=0)


def test_timms_own_weights_fit() -> None:
    theirs = timms("cls", reg_tokens=2, init_values=0.1).double().eval()
    ours = vit(registers=2, layer_scale=0.1)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(images()), theirs(images()), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("readout", "out_dim"), [("cls", 16), ("mean", 16), ("both", 32)])
def test_the_readout_is_what_it_says(readout: str, out_dim: int) -> None:
    net, x = vit(readout=readout, registers=1), images()
    tokens = net.tokens(x)
    assert tokens.shape == (3, 2 + 16, 16)
    expected = {"cls": tokens[:, 0], "mean": tokens[:, 2:].mean(1)}
    expected["both"] = torch.cat([expected["cls"], expected["mean"]], 1)
    assert net.out_dim == out_dim
    torch.testing.assert_close(net(x), expected[readout], atol=0, rtol=0)


def naive_tokens(net: ViT, image: Tensor, places: list[int]) -> Tensor:
    """One image's visible patches, put together by hand."""
    patches = [p.reshape(4, 4, 3).permute(2, 0, 1) for p in paper.patches_of(image, 4)]
    kernel, bias = net.patch_embed.proj.weight, net.patch_embed.proj.bias
    rows = [net.cls_token[0, 0] + net.pos_embed[0, 0]]
    for place in places:
        rows.append((kernel * patches[place]).sum((1, 2, 3)) + bias + net.pos_embed[0, 1 + place])
    return net.norm(net.blocks(torch.stack(rows)[None]))[0]


def test_visible_patches_alone_enter() -> None:
    net, x = vit(), images()
    visible = torch.tensor([[0, 3, 7], [15, 1, 2], [4, 5, 6]])
    found = net.tokens(x, visible)
    assert found.shape == (3, 1 + 3, 16)
    for row, places in enumerate(visible.tolist()):
        torch.testing.assert_close(found[row], naive_tokens(net, x[row], places), atol=1e-12, rtol=0)
    torch.testing.assert_close(net.tokens(x, torch.arange(16).expand(3, -1)), net.tokens(x), atol=1e-12, rtol=0)


def test_the_image_behind_a_mask_is_not_seen() -> None:
    net, token = vit(), torch.randn(16, dtype=torch.float64)
    hidden = torch.rand(3, 16, generator=torch.Generator().manual_seed(2)) < 0.5
    x, y = images(), images() * 5 + 1
    behind = hidden.view(3, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    first, second = (net.tokens(torch.where(behind, z, x), hidden=hidden, mask_token=token) for z in (x, y))
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)
    assert not torch.allclose(first, net.tokens(x))


def test_images_of_another_size_get_interpolated_positions() -> None:
    net = vit()
    assert net(images(8)).shape == (3, 16)
    theirs = timms("cls", dynamic_img_size=True).double().eval()
    theirs.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(images(8)), theirs(images(8)), atol=1e-12, rtol=0)


def test_a_blocks_attention_is_one_call_of_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the network and in what decodes its tokens, one call for each block."""
    calls: list[tuple[int, ...]] = []

    def counted(q: Tensor, *rest, **kwargs) -> Tensor:
        calls.append(tuple(q.shape))
        return kernel(q, *rest, **kwargs)

    kernel = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    net = vit()
    tokens = net.tokens(images())
    assert calls == [(3, 2, 17, 8)] * 3  # images, heads, tokens, width of a head
    places = torch.arange(16).expand(3, -1)
    patches = net.split(tokens)[1]
    TokenPredictor(net, dim=8, depth=2, heads=2).double()(patches[:, :12], places[:, :12], places[:, None, 12:])
    assert calls[3:] == [(3, 2, 16, 4)] * 2
    MAEDecoder(net, dim=8, depth=1, heads=2).double()(tokens[:, :5], places[:, :4])
    assert calls[5:] == [(3, 2, 17, 4)]


def test_sincos_positions_equal_the_paper_and_stay() -> None:
    expected = torch.as_tensor(paper.sincos_positions(4, 16))
    torch.testing.assert_close(sincos_positions(4, 16).double(), expected.double(), atol=1e-6, rtol=0)
    net = ViT(**SIZES, positions="sincos")
    torch.testing.assert_close(net.pos_embed[0, 1:], sincos_positions(4, 16), atol=0, rtol=0)
    assert not net.pos_embed[0, 0].any()
    assert not net.pos_embed.requires_grad


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="patches of 5 px do not divide images of 16 px"):
        vit(patch_size=5)
    with pytest.raises(UserError, match="3 heads do not divide tokens 16 wide"):
        vit(heads=3)
    with pytest.raises(UserError, match="multiple of 4, not 6"):
        sincos_positions(2, 6)


@pytest.mark.parametrize("changes", [{}, {"layer_scale": 0.1, "registers": 2}])
def test_block_states_are_what_the_mlps_add(changes) -> None:
    net, x = vit(**changes), images()
    states = net.block_states(x)
    assert len(states) == 3
    tokens = net._pos_embed(net.patch_embed(x))
    for block, added in zip(net.blocks, states, strict=True):
        heard: list[Tensor] = []
        handle = block.mlp.register_forward_hook(lambda module, args, out, heard=heard: heard.append(out))
        tokens = block(tokens)
        handle.remove()
        torch.testing.assert_close(added, heard[0], atol=1e-12, rtol=0)


def test_attention_is_that_of_the_class_token_in_the_last_block() -> None:
    net, x = vit(registers=1), images()
    state = net.blocks[:-1](net._pos_embed(net.patch_embed(x)))
    attn, expected = net.blocks[-1].attn, torch.zeros(3, 2, 4, 4, dtype=torch.float64)
    for image, rows in enumerate(net.blocks[-1].norm1(state)):
        q, k, _ = attn.qkv(rows).chunk(3, 1)
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            scores = torch.stack([q[0, part] @ key[part] / 8**0.5 for key in k])
            expected[image, head] = (scores.exp() / scores.exp().sum())[2:].view(4, 4)
    torch.testing.assert_close(net.attention(x), expected, atol=1e-12, rtol=0)


def test_pictures_have_a_map_for_each_head_and_a_colour_for_each_patch() -> None:
    net, x = vit(), images()
    shown = attention_pictures(net, x)
    image, first, second = shown["attention"]
    assert image is x
    maps = net.attention(x)
    for number, column in enumerate((first, second)):
        low, high = maps[:, number].amin((1, 2), keepdim=True), maps[:, number].amax((1, 2), keepdim=True)
        scaled = (255 * (maps[:, number] - low) / (high - low)).round().to(torch.uint8)
        assert torch.equal(column[:, 0, ::4, ::4], scaled)
        assert torch.equal(column[:, :, ::4, ::4], column[:, :, 3::4, 3::4])
    colours = shown["patch_pca"][1].permute(1, 0, 2, 3).flatten(1)
    assert colours.amin(1).tolist() == [0, 0, 0]
    assert colours.amax(1).tolist() == [255, 255, 255]
    assert attention_pictures(torch.nn.Identity(), x) == {}


def test_stochastic_depth_rises_or_is_the_same_in_every_block() -> None:
    def rates(**changes: bool) -> list[tuple[float, float]]:
        return [
            tuple(round(getattr(path, "drop_prob", 0.0), 6) for path in (block.drop_path1, block.drop_path2))
            for block in vit(drop_path=0.3, **changes).blocks
        ]

    assert rates() == [(0.0, 0.0), (0.15, 0.15), (0.3, 0.3)]
    assert rates(uniform_drop_path=True) == [(0.3, 0.3)] * 3
    assert not any(isinstance(module, DropPath) for module in vit(uniform_drop_path=True).modules())


@pytest.mark.parametrize("part", [MAEDecoder, TokenPredictor])
def test_decoders_take_the_authors_eps(part: type) -> None:
    """1e-6 in every LayerNorm; 1e-5 where nobody says so, as in runs that were begun before."""
    for given, expected in (({}, 1e-5), ({"eps": 1e-6}, 1e-6)):
        norms = [
            m for m in part(vit(), dim=16, depth=2, heads=2, **given).modules() if isinstance(m, torch.nn.LayerNorm)
        ]
        assert {norm.eps for norm in norms} == {expected}
        assert len(norms) == 5
