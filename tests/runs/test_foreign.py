"""Weights that others have written: the right network of the file, in the right layers, and nothing in part."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from ssl_lightning import load_backbone
from ssl_lightning.core import bounded
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.resnet import resnet
from ssl_lightning.models.timm import timm_backbone
from ssl_lightning.models.vit import ViT
from ssl_lightning.runs import foreign
from ssl_lightning.runs.checkpoint import load_weights, resolve_ckpt
from tests import foreign_files as files


def stirred(net: nn.Module, seed: int = 3) -> nn.Module:
    """The network with all of its numbers drawn anew, so that no two layers are alike by their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.1)
    return net.eval()


def vit(size: int = 8, **kwargs: Any) -> ViT:
    return ViT(**{"image_size": size, "patch_size": 4, "dim": 16, "depth": 2, "heads": 2, **kwargs}).eval()


def images(size: int = 8) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(5))


def assert_alike(net: nn.Module, reference: nn.Module, size: int = 8) -> None:
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(images(size)), reference(images(size)), rtol=1e-4, atol=3e-5)


def saved(content: Any, folder: Path, **how: Any) -> Path:
    torch.save(content, folder / "theirs.pth", **how)
    return folder / "theirs.pth"


@pytest.mark.parametrize("name", files.VITS)
def test_a_vit_of_others(name: str, tmp_path: Path) -> None:
    reference = stirred(vit())
    net = vit()
    load_weights(net, saved(files.VITS[name](reference.state_dict()), tmp_path))
    assert_alike(net, reference)


def tiny_resnet(stem: str = "imagenet") -> nn.Module:
    """torchvision's ResNet-18 with two channels for 64: its names, and a file of kilobytes."""
    net: Any = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], width_per_group=64)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                sizes = [1 if n == 3 else n // 32 for n in (child.in_channels, child.out_channels)]
                sizes[0] = 3 if child.in_channels == 3 else sizes[0]
                setattr(module, name, nn.Conv2d(*sizes, child.kernel_size, child.stride, child.padding, bias=False))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(child.num_features // 32))
    net.fc = nn.Identity()
    if stem == "cifar":
        net.conv1, net.maxpool = nn.Conv2d(3, 2, 3, padding=1, bias=False), nn.Identity()
    return net.eval()


@pytest.mark.parametrize("name", files.RESNETS)
def test_a_resnet_of_others(name: str, tmp_path: Path) -> None:
    reference, net = stirred(tiny_resnet()), tiny_resnet()
    load_weights(net, saved(files.RESNETS[name](reference.state_dict()), tmp_path))
    assert_alike(net, reference, 32)


def test_a_small_resnet_in_a_row(tmp_path: Path) -> None:
    reference, net = stirred(tiny_resnet("cifar")), tiny_resnet("cifar")
    load_weights(net, saved(files.small_row(reference.state_dict()), tmp_path))
    assert_alike(net, reference, 32)


def test_the_line_says_what_was_taken_and_what_stays_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(files.dino(stirred(vit()).state_dict()), tmp_path)
    load_weights(vit(), path)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"{path}: {len(vit().state_dict())} tensors under 'teacher.backbone.'" in line
    assert "set aside: student, teacher.head, dino_loss" in line
    load_weights(vit(16), saved(files.mae(stirred(vit()).state_dict()), tmp_path))
    line = capsys.readouterr().err
    assert "positions resampled from 2 x 2 to 4 x 4" in line
    assert "set aside: decoder_embed, decoder_pos_embed, decoder_blocks, decoder_pred, mask_token" in line


def test_an_own_file_needs_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_weights(vit(), saved(vit().state_dict(), tmp_path))
    assert capsys.readouterr().err == ""


# ---- positions, class token, registers


def test_positions_are_resampled_as_timm_does_on_the_fly(tmp_path: Path) -> None:
    """A larger image through the small network (timm resamples in its forward) gives what the large one gives."""
    reference, net = stirred(vit(16)), vit(24)
    load_weights(net, saved(reference.state_dict(), tmp_path))
    assert_alike(net, reference, 24)


def by_the_authors(net: ViT, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """DINOv2's own order: class token, positions of class and patches, then registers without positions."""
    patches = net.patch_embed(x).flatten(1, 2)
    tokens = torch.cat([state["cls_token"].expand(len(x), -1, -1), patches], 1) + state["pos_embed"]
    registers = state["register_tokens"].expand(len(x), -1, -1)
    return net.norm(net.blocks(torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)))[:, 0]


def dinov2_state() -> tuple[ViT, dict[str, Tensor]]:
    reference = stirred(vit(12, registers=4, layer_scale=0.1))
    state = dict(reference.state_dict())
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.rand(1, 10, 16, generator=torch.Generator().manual_seed(8))
    return reference, state


@pytest.mark.parametrize("layout", [dict, files.dinov2_chunks, files.dinov2_teacher, files.dinov2_transformers])
def test_dinov2_with_registers(layout: Any, tmp_path: Path) -> None:
    reference, state = dinov2_state()
    path = saved(layout(state), tmp_path)
    expected = by_the_authors(reference, state, images(12))
    no_positions = timm.models.vision_transformer.VisionTransformer(
        img_size=12, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=0, reg_tokens=4, no_embed_class=True,
        init_values=0.1,
    )  # fmt: skip
    for net in (vit(12, registers=4, layer_scale=0.1), no_positions.eval()):
        load_weights(net, path)
        torch.testing.assert_close(net(images(12)), expected, rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize("grid", [2, 3, 4, 5])
def test_timms_registers_without_positions(grid: int, tmp_path: Path) -> None:
    """vit_small_patch14_reg4_dinov2's own state, narrow and short: class token and registers have no positions."""
    options: dict[str, Any] = {"img_size": 14 * grid, "embed_dim": 16, "depth": 2, "num_heads": 2}
    theirs = stirred(timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, **options))
    net = vit(14 * grid, patch_size=14, registers=4, layer_scale=0.1)
    load_weights(net, saved(theirs.state_dict(), tmp_path))
    assert_alike(net, theirs, 14 * grid)


def test_ijepa_has_no_class_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = stirred(vit(class_token=False, readout="mean"))
    path = saved(files.ijepa(reference.state_dict()), tmp_path)
    assert "cls_token" not in reference.state_dict()
    net = vit(class_token=False, readout="mean")
    load_weights(net, path)
    assert_alike(net, reference)
    assert "set aside: encoder, predictor" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"'cls_token' \(1, 1, 16\) is missing there.*class_token=false"):
        load_weights(vit(), path)
    with pytest.raises(UserError, match=r"set backbone.readout=mean"):
        vit(class_token=False)


# ---- other libraries' names


def test_torchvisions_vit(tmp_path: Path) -> None:
    theirs = stirred(
        torchvision.models.VisionTransformer(
            image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=5
        )
    )
    path = saved(theirs.state_dict(), tmp_path)
    net = vit()
    load_weights(net, path)
    theirs.heads = nn.Identity()
    assert_alike(net, theirs)


def test_open_clips_vit_in_timms(tmp_path: Path) -> None:
    """The names of CLIP's image tower, a norm before the blocks, and a text tower beside it."""
    options: dict[str, Any] = {"img_size": 64, "embed_dim": 16, "depth": 2, "num_heads": 2}
    theirs = stirred(timm.create_model("vit_base_patch32_clip_224", num_classes=0, **options))
    found: dict[str, Tensor] = {"visual.proj": torch.ones(16, 8), "logit_scale": torch.ones(())}
    for key, value in theirs.state_dict().items():
        for ours, named in [
            ("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks."),
            (".norm", ".ln_"), ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("pos_embed", "positional_embedding"),
        ]:  # fmt: skip
            key = key.replace(ours, named)
        key = "ln_post" + key[4:] if key.startswith("norm.") else key
        value = value[0, 0] if key == "cls_token" else value[0] if key == "positional_embedding" else value
        found[f"visual.{key.replace('cls_token', 'class_embedding')}"] = value
    found |= {"transformer.resblocks.0.ln_1.weight": torch.ones(8), "positional_embedding": torch.ones(7, 8)}
    path = saved(found, tmp_path)
    net = timm_backbone("vit_base_patch32_clip_224", image_size=64, embed_dim=16, depth=2, num_heads=2)
    load_weights(net, path)
    assert_alike(net, theirs, 64)
    with pytest.raises(UserError, match=r"norm_pre.*a norm before the first block"):
        load_weights(vit(64, patch_size=32), path)


def test_a_bias_of_queries_and_values(tmp_path: Path) -> None:
    reference = stirred(vit())
    for block in reference.blocks:
        block.attn.qkv.bias.data[16:32] = 0
    net = vit()
    load_weights(net, saved(files.split_bias(reference.state_dict()), tmp_path))
    assert_alike(net, reference)


def test_no_bias_is_a_bias_of_zeros(tmp_path: Path) -> None:
    reference = stirred(vit())
    for block in reference.blocks:
        block.attn.qkv.bias.data.zero_()
    state = {key: value for key, value in reference.state_dict().items() if not key.endswith("qkv.bias")}
    net = stirred(vit(), seed=9)
    load_weights(net, saved(state, tmp_path))
    assert_alike(net, reference)


def test_beit_and_gated_layers_in_timms(tmp_path: Path) -> None:
    options: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    beit = stirred(timm.create_model("beit_base_patch16_224", img_size=32, num_classes=0, **options))
    index = {f"blocks.{i}.attn.relative_position_index": torch.zeros(2, 2).long() for i in range(2)}
    extra = files.head("", "mask_token", "lm_head.weight")
    net = timm_backbone("beit_base_patch16_224", image_size=32, **options)
    load_weights(net, saved({"model": {**beit.state_dict(), **index, **extra}}, tmp_path))
    assert_alike(net, beit, 32)
    options["embed_dim"] = 24
    gated = stirred(timm.create_model("vit_giant_patch14_dinov2", img_size=28, num_classes=0, **options))
    state = {k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for k, v in gated.state_dict().items()}
    net = timm_backbone("vit_giant_patch14_dinov2", image_size=28, **options)
    load_weights(net, saved(state, tmp_path))
    assert_alike(net, gated, 28)


def test_names_that_timm_knows_of_an_architectures_authors(tmp_path: Path) -> None:
    """Swin's own file: the layer that merges patches ends a stage there, and begins the next one with timm."""
    options: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 1), "window_size": 2}
    theirs = stirred(timm.create_model("swin_tiny_patch4_window7_224", img_size=16, num_classes=0, **options))
    state = {key.replace("layers.1.downsample", "layers.0.downsample"): v for key, v in theirs.state_dict().items()}
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4).long()
    net = timm_backbone("swin_tiny_patch4_window7_224", image_size=16, **options)
    load_weights(
        net, saved({"model": {**files.under("encoder.", state), **files.head("decoder.", "0.weight")}}, tmp_path)
    )
    assert_alike(net, theirs, 16)


# ---- how it is stored


@pytest.mark.parametrize(
    "how", [{"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5}]
)
def test_formats_of_torch(how: dict[str, Any], tmp_path: Path) -> None:
    reference, net = stirred(vit()), vit()
    load_weights(net, saved(files.dino(reference.state_dict()), tmp_path, **how))
    assert_alike(net, reference)


def test_a_whole_module(tmp_path: Path) -> None:
    """`torch.save(model)`: its tensors are read, its class is not."""
    reference, net = stirred(vit()), vit()
    load_weights(net, saved({"model": torchvision.ops.Permute([0]), "net": reference}, tmp_path))
    assert_alike(net, reference)


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    reference, net = stirred(vit()), vit()
    torch.save(files.transformers(reference.state_dict()), tmp_path / "pytorch_model.bin")
    load_weights(net, tmp_path)
    assert_alike(net, reference)


# ---- what is refused


def test_another_depth_names_what_is_left_over_and_what_fits(tmp_path: Path) -> None:
    deep = vit(dim=192, heads=3, depth=12, patch_size=2)
    path = saved(files.dino(deep.state_dict()), tmp_path)
    with pytest.raises(UserError) as caught:
        load_weights(vit(dim=192, heads=3, depth=11, patch_size=2), path)
    message = str(caught.value)
    assert "'blocks.11.norm1.weight' (192,) is missing here" in message
    assert "a ViT of width 192, depth 12, patches of 2 px: backbone=vit_tiny backbone.patch_size=2" in message
    assert "backbone.patch_size=2 backbone.dim=192 backbone.depth=12" in message  # experiment=cpu has other ones
    assert "\n" not in message


def test_missing_and_left_over_are_both_named(tmp_path: Path) -> None:
    state = dict(vit(layer_scale=0.1).state_dict())
    del state["norm.bias"]
    with pytest.raises(
        UserError, match=r"'norm.bias' \(16,\) is missing there, 'blocks.0.ls1.gamma' \(16,\) is missing"
    ):
        load_weights(vit(), saved(state, tmp_path))


def test_no_network_is_taken_from_inside_another(tmp_path: Path) -> None:
    """A block of the file would fit, whole."""
    block = torchvision.models.resnet.BasicBlock(2, 2)
    net = nn.Sequential()
    net.add_module("layer1", copy.deepcopy(block))
    path = saved(files.under("layer1.0.", block.state_dict()), tmp_path)
    with pytest.raises(UserError, match="another backbone"):
        load_weights(block, path)


def test_two_that_fit_alike(tmp_path: Path) -> None:
    state = vit().state_dict()
    path = saved({"left": dict(state), "right": files.other(state)}, tmp_path)
    with pytest.raises(UserError, match=r"two networks that fit, 'left\.' and 'right\.'; save the one you want alone"):
        load_weights(vit(), path)
    load_weights(vit(), saved({"left": dict(state), "right": dict(state)}, tmp_path))


def test_other_patches_are_another_network(tmp_path: Path) -> None:
    options: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=0, **options)
    net = timm_backbone("vit_tiny_patch16_224", image_size=32, **options)
    with pytest.raises(UserError, match=r"'patch_embed.proj.weight' is \(16, 3, 8, 8\) there"):
        load_weights(net, saved(theirs.state_dict(), tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet50", "it holds a resnet50: backbone=resnet50 backbone.stem=imagenet"),
        ("wide_resnet50_2", "it holds a wide_resnet50_2: backbone=resnet50 backbone.name=wide_resnet50_2"),
        ("resnext50_32x4d", "it holds a resnext50_32x4d"),
    ],
)
def test_a_resnet_is_named(name: str, words: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = resnet(name)
    state = {key: torch.zeros(()).expand(value.shape) for key, value in theirs.state_dict().items()}
    with pytest.raises(UserError, match=words):
        load_weights(tiny_resnet(), saved(state, tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "vit_small_patch14_reg4_dinov2",
            "4 registers, layer scale: backbone=vit_small .*=vit_small_patch14_reg4_dinov2",
        ),
        ("vit_giant_patch14_dinov2", "gated MLPs: backbone=timm backbone.name=vit_giant_patch14_dinov2"),
        ("vit_base_patch16_clip_224", "first block: backbone=timm backbone.name=vit_base_patch16_clip_224"),
        ("beit_base_patch16_224", "relative positions: backbone=timm backbone.name=beit_base_patch16_224"),
        ("vit_large_patch16_224", "backbone.depth=24, or backbone=timm backbone.name=vit_large_patch16_224"),
        ("convnext_tiny", "backbone=timm backbone.name=convnext_tiny"),
        ("swin_tiny_patch4_window7_224", "backbone=timm backbone.name=swin_tiny_patch4_window7_224"),
    ],
)
def test_a_network_of_timms_is_named(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bounded, foreign):  # large networks, written as one number each
        monkeypatch.setattr(module, "MOST_REPEATED", 2**32)
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0)
    state = {key: torch.zeros(()).expand(value.shape) for key, value in theirs.state_dict().items()}
    with pytest.raises(UserError, match=words):
        load_weights(vit(), saved(state, tmp_path))


def test_a_bare_file_says_that_it_does_not_say(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not say which backbone.*use load_weights"):
        load_backbone(saved(files.dino(vit().state_dict()), tmp_path))


def test_what_has_no_weights_or_no_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no state_dict"):
        resolve_ckpt(saved({"args": files.settings(), "optimizer": files.optimizer({})}, tmp_path))
    loop: dict[str, Any] = {"x": torch.ones(1)}
    loop["again"] = loop
    with pytest.raises(UserError, match="nested too deeply"):
        resolve_ckpt(saved(loop, tmp_path))
    assert os.listdir(tmp_path) == ["theirs.pth"]
