"""Every token method on every kind of token encoder, and every method on strangers that have what a Protocol lists."""

from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import TOKENS, has_tokens, map_encoder, token_encoder
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.models.decoder import MAEDecoder
from ssl_lightning.models.predictor import TokenPredictor
from ssl_lightning.models.timm import timm_backbone
from ssl_lightning.parts.masking import take
from tests.contracts.encoders import TINY, TOKEN_ENCODERS, StrangeMap, Stranger, StrangeTokens, encoder, items
from tests.methods.harness import METHODS, at, batch_for, gradients, step, tiny_method

TOKEN_METHODS = ("mae", "simmim", "data2vec", "ijepa", "ibot", "dinov2", "msn")
MAP_METHODS = ("densecl", "colorization", "simmim")  # the last takes either
TIMM = {
    "timm": "vit_tiny_patch16_224",
    "timm_mean": "vit_tiny_patch16_224",
    "timm_deit": "deit_tiny_distilled_patch16_224",
    "timm_registers": "vit_small_patch14_reg4_dinov2",
    "timm_eva02": "eva02_tiny_patch14_224",
    "timm_dinov3": "vit_small_patch16_dinov3",
    "timm_mixed": "vit_small_patch16_rope_mixed_224",
}


def places(net: Any, count: int, batch: int = 4) -> Tensor:
    """Different places of patches for each item, in no order."""
    total = net.tokens(items(net, 1)).shape[1] - net.num_prefix_tokens
    draw = torch.rand(batch, total, generator=torch.Generator().manual_seed(3))
    return draw.argsort(1)[:, : count or total]


def elsewhere(net: Any, x: Tensor, hidden: Tensor) -> Tensor:
    """The same items with other content in the hidden patches (B, N)."""
    other = torch.where(hidden[..., None], 5 * net.patchify(x).flip(0) + 1, net.patchify(x))
    return net.unpatchify(other)


@pytest.mark.parametrize("name", TOKEN_ENCODERS)
def test_tokens_hide_what_is_hidden_and_keep_their_places(name: str) -> None:
    net: Any = encoder(name).eval()
    x, kept = items(net), places(net, 5)
    patches = net.patchify(x)
    assert patches.shape == (4, torch.Size(net.grid).numel(), net.patch_dim)
    assert torch.equal(net.unpatchify(patches), x)
    whole = net.tokens(x)
    assert whole.shape == (4, net.num_prefix_tokens + patches.shape[1], net.token_dim)
    torch.testing.assert_close(net.read(whole), net(x), atol=1e-12, rtol=0)
    assert net(x).shape == (4, net.out_dim)
    hidden = torch.ones(4, patches.shape[1], dtype=torch.bool).scatter(1, kept, False)
    changed = elsewhere(net, x, hidden)
    assert not torch.allclose(changed, x)
    # Left out: nothing of what is hidden is seen, and what is kept knows its place in whatever order it comes.
    torch.testing.assert_close(net.tokens(changed, kept), net.tokens(x, kept), atol=1e-12, rtol=0)
    order = places(net, 0)
    prefix, moved = net.split(net.tokens(x, order))
    torch.testing.assert_close(prefix, net.split(whole)[0], atol=1e-9, rtol=0)
    torch.testing.assert_close(moved, take(net.split(whole)[1], order), atol=1e-9, rtol=0)
    # Replaced: the same, with the mask token in its place.
    token = torch.randn(net.token_dim, dtype=torch.float64)
    replaced = net.tokens(x, hidden=hidden, mask_token=token)
    torch.testing.assert_close(net.tokens(changed, hidden=hidden, mask_token=token), replaced, atol=1e-12, rtol=0)
    assert not torch.allclose(replaced, whole)
    assert not torch.allclose(net.tokens(changed), whole)
    found = net.feature_map(x)
    assert found.shape == (4, net.token_dim, *net.grid)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), net.split(whole)[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", TOKEN_ENCODERS)
def test_block_states_are_what_the_mlps_say(name: str) -> None:
    net: Any = encoder(name).eval()
    x, heard = items(net), []
    for block in net.blocks:
        block.mlp.register_forward_hook(lambda module, args, out: heard.append(out))
    net.tokens(x)
    states = net.block_states(x)
    assert len(states) == 2
    for state, out in zip(states, heard, strict=False):
        torch.testing.assert_close(state, out, atol=1e-12, rtol=0)
    assert not any(block.mlp._forward_hooks for block in encoder(name).blocks)


@pytest.mark.parametrize("name", [*TOKEN_ENCODERS])
def test_attention_is_shown_where_it_can_be_told(name: str) -> None:
    net: Any = encoder(name).eval()
    assert net.has_attention == (name not in ("timm_eva02", "timm_dinov3", "timm_mixed"))
    if net.has_attention:
        maps = net.attention(items(net))
        assert maps.shape[0] == 4
        assert maps.shape[2:] == net.grid
        assert (maps.sum(tuple(range(2, maps.ndim))) <= 1 + 1e-9).all()


@pytest.mark.parametrize("name", TIMM)
def test_a_network_of_timm_stays_timms(name: str) -> None:
    """The same names, the same features, by its name or handed over as it is."""
    sizes = dict(TINY) | ({"num_heads": 2} if name == "timm_dinov3" else {})
    sizes["img_size"] = sizes.pop("image_size")
    pool = {"global_pool": "avg"} if name == "timm_mean" else {}
    theirs = timm.create_model(TIMM[name], num_classes=0, **sizes, **pool).double().eval()
    ours = encoder(name).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = items(ours)
    assert torch.equal(ours(x), theirs(x))
    assert isinstance(ours, type(theirs))
    method = SSLMethod(theirs)
    assert has_tokens(method.backbone)
    torch.testing.assert_close(method.embed(x), ours(x), atol=0, rtol=0)


def test_what_is_no_plain_vit_is_left_alone() -> None:
    overlapping = timm.create_model("vit_tiny_r_s16_p8_224", num_classes=0)  # patches of a ResNet's map
    dropping = timm.create_model("vit_tiny_patch16_224", num_classes=0, patch_drop_rate=0.5, depth=1)
    for net in (overlapping, dropping, timm_backbone("resnet10t")):
        kind = type(net)
        assert not has_tokens(SSLMethod(net).backbone)
        assert type(net) is kind
        with pytest.raises(UserError, match="MAE hides patches of a ViT; choose backbone=vit_tiny"):
            token_encoder(net, "MAE")


def method_on(name: str, net: nn.Module) -> SSLMethod:
    parts: dict[str, Any] = {"backbone": net}
    if name == "simmim":
        parts["mask_size"] = 4 if net.strides[-1] < 3 else 6  # type: ignore[index, union-attr]
        parts["mask_size"] = {(2, 3): 6, (1, 2, 2): 2}.get(tuple(net.strides), parts["mask_size"])  # type: ignore[arg-type]
    parts |= {"mae": {"decoder": partial(MAEDecoder, dim=12, depth=1, heads=2)}}.get(name, {})
    parts |= {"ijepa": {"predictor": partial(TokenPredictor, dim=12, depth=1, heads=2)}}.get(name, {})
    return tiny_method(name, **parts)


def finite_step(method: SSLMethod, batch: Batch, epoch: int) -> float:
    method.zero_grad()
    output = step(at(method, epoch), batch)
    output["loss"].backward()
    assert torch.isfinite(output["loss"])
    assert output["features"].shape[-1] == method.backbone.out_dim
    moved = [key for key, grad in gradients(method).items() if key.startswith("backbone.") and grad.any()]
    assert len(moved) > 3 or isinstance(method.backbone, Stranger)
    assert moved
    return output["loss"].item()


@pytest.mark.parametrize("name", TOKEN_METHODS)
@pytest.mark.parametrize("kind", TOKEN_ENCODERS)
def test_a_token_method_steps_on_every_token_encoder(name: str, kind: str) -> None:
    net: Any = encoder(kind)
    if kind == "wide" and name == "simmim":
        pytest.skip("no square divides 4 x 12 px into whole patches of 2 x 3 px and leaves two")
    method = method_on(name, net)
    lengths = tuple(n * side for n, side in zip(net.grid, net.strides, strict=True))
    batch = Batch([items(net, 4, seed) for seed in range(2)], torch.arange(4) % 3, torch.arange(4))
    if len(set(lengths)) == 1:
        method.check_views([lengths[0]] * (method.global_views or 2))
    token_encoder(net).check_size(lengths, own=True)
    first, second = finite_step(method, batch, 0), finite_step(method, batch, 1)
    assert first != second  # other masks
    assert finite_step(method, batch, 1) != first
    assert method.embed(batch.views[0]).shape == (4, net.out_dim)
    for columns in method.pictures(batch).values():  # type: ignore[operator]
        assert columns[0].shape == batch.views[0].shape


@pytest.mark.parametrize("name", METHODS)
def test_a_stranger_that_gives_features_is_enough_or_told_what_it_lacks(name: str) -> None:
    if name in (*TOKEN_METHODS, *MAP_METHODS):
        with pytest.raises(UserError, match=r"ViT|feature map") as told:
            tiny_method(name, backbone=Stranger())
        assert "\n" not in str(told.value)
        return
    for epoch in (0, 1):
        finite_step(tiny_method(name, backbone=Stranger()), batch_for(name), epoch)


@pytest.mark.parametrize("name", MAP_METHODS)
def test_a_stranger_that_gives_a_map_is_enough(name: str) -> None:
    method = tiny_method(name, backbone=StrangeMap(), **({"stride": 1} if name == "simmim" else {}))
    method.check_views([4] * (method.global_views or 2))
    for epoch in (0, 1):
        finite_step(method, batch_for(name), epoch)


@pytest.mark.parametrize("name", [*TOKEN_METHODS, "colorization"])
def test_a_stranger_that_gives_tokens_is_enough(name: str) -> None:
    method = tiny_method(name, backbone=StrangeTokens())
    assert has_tokens(method.backbone)
    for epoch in (0, 1):
        finite_step(method, batch_for(name), epoch)


def test_what_is_not_yet_a_token_encoder_is_told_what_it_lacks() -> None:
    assert len(TOKENS) == 13

    class Half(StrangeTokens):
        block_states = property()  # type: ignore[assignment]

    with pytest.raises(UserError, match="data2vec needs of its network what TokenEncoder lists; it lacks block_states"):
        token_encoder(Half(), "data2vec")
    with pytest.raises(UserError, match="it lacks strides"):
        map_encoder(type("Odd", (nn.Module,), {"feature_map": lambda self, x: x})())
