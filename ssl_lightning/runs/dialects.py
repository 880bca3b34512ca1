"""The names that other libraries give to the layers of a ViT or a ResNet, put into timm's and torchvision's.

A dialect is known by one of its keys. None of this looks at values but for joining what is one layer with us (queries,
keys and values) and giving a class token the axes it has here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]


class Dialect(NamedTuple):
    """Whose names these are, a key that tells (after a prefix), and the way to ours."""

    name: str
    anchor: str
    ours: Callable[[State], State]


def renamed(*rules: tuple[str, str]) -> Callable[[State], State]:
    """Applies each rule (a pattern from the key's start, and what stands there with us), in order."""
    compiled = [(re.compile(pattern), new) for pattern, new in rules]

    def ours(state: State) -> State:
        found = {}
        for key, value in state.items():
            for pattern, new in compiled:
                key = pattern.sub(new, key)
            found[key] = value
        return found

    return ours


def join_qkv(state: State) -> State:
    """Layers `attn.q`, `attn.k` and `attn.v` as one, `attn.qkv`; a key without bias has a bias of zeros."""
    found = dict(state)
    for key in state:
        match = re.fullmatch(r"(.*\battn\.)q([._])(weight|bias)", key)
        if match is None:
            continue
        stem, dot, kind = match.groups()
        parts = {part: state.get(f"{stem}{part}{dot}{kind}") for part in "qkv"}
        if kind == "bias" and parts["k"] is None:
            parts["k"] = torch.zeros_like(state[key])
        if any(value is None for value in parts.values()):
            continue
        for part in "qkv":
            found.pop(f"{stem}{part}{dot}{kind}", None)
        found[f"{stem}qkv.{kind}"] = torch.cat([value for value in parts.values() if value is not None])
    return found


def _transformers(state: State) -> State:
    return join_qkv(_TRANSFORMERS(state))


_TRANSFORMERS = renamed(
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.(?:attention\.)?(q|k|v)(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"^layernorm\.", "norm."),
)

_TORCHVISION = renamed(
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_", "blocks."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:linear_2|3)\.", ".mlp.fc2."),
)

_CLIP = renamed(
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.ls_(\d)\.", r".ls\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def _clip(state: State) -> State:
    found = _CLIP(state)
    for key, axes in (("cls_token", (1, 1, -1)), ("pos_embed", (1, *found["pos_embed"].shape[-2:]))):
        if key in found:
            found[key] = found[key].reshape(axes)
    return found


_MM = renamed(
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.", "blocks."),
    (r"^(?:ln1|norm1)\.", "norm."),
    (r"^(blocks\.\d+\.)(?:ln|norm)(\d)\.", r"\1norm\2."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"\.(?:attn|ffn)\.gamma(\d)\.weight$", r".ls\1.gamma"),
)


def _counted(state: State) -> State:
    """A ResNet as a row of its layers (lightly, and whoever takes `children()[:-1]`): numbers instead of names."""
    first = 2 if "2.0.conv1.weight" in state else 4  # a CIFAR stem is a convolution and a norm; no ReLU, no pooling
    names = {"0": "conv1", "1": "bn1", **{str(first + i): f"layer{i + 1}" for i in range(4)}}
    found = {}
    for key, value in state.items():
        number, dot, rest = key.partition(".")
        found[names.get(number, number) + dot + rest] = value
    return found


DIALECTS = (
    Dialect("transformers", "embeddings.patch_embeddings.projection.weight", _transformers),
    Dialect("torchvision", "conv_proj.weight", _TORCHVISION),
    Dialect("open_clip", "class_embedding", _clip),
    Dialect("mmpretrain", "patch_embed.projection.weight", _MM),
    Dialect("a row of layers", "4.0.conv1.weight", _counted),
    Dialect("a row of layers", "2.0.conv1.weight", _counted),
)


_LAST = (
    (re.compile(r"^blocks\.\d+\.(\d+\.)"), r"blocks.\1"),  # DINOv2 trains with its blocks in chunks, numbered through
    (re.compile(r"^register_tokens$"), "reg_token"),
    (re.compile(r"\.mlp\.w12\."), ".mlp.fc1."),
    (re.compile(r"\.mlp\.w3\."), ".mlp.fc2."),
    (re.compile(r"\.gamma_(\d)$"), r".ls\1.gamma"),
    (re.compile(r"\.shortcut\.(\d)\."), r".downsample.\1."),
)


def last_names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> State:
    """What authors' own files (DINOv2, BEiT, SimMIM, DeiT III, small ResNets) call otherwise than the backbone does."""
    found = {}
    for key, value in state.items():
        if key not in wanted:
            for pattern, new in _LAST:
                key = pattern.sub(new, key)
        found[key] = value
    split = any(key.endswith(".q_bias") for key in wanted)
    return found if split else join_qkv(found)
