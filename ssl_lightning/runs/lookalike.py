"""Which network some weights are of, told from their names and shapes: for the line that refuses them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Width and depth of the sizes in common use.
VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large", (1280, 32): "huge"}
VITS |= {(1408, 40): "giant", (1536, 40): "giant", (1664, 48): "gigantic"}
RESNETS = {
    (2, 2, 2, 2): ("resnet18", ""),
    (3, 4, 6, 3): ("resnet34", "resnet50"),
    (3, 4, 23, 3): ("", "resnet101"),
    (3, 8, 36, 3): ("", "resnet152"),
}
# A key that only this architecture has, and networks of timm with it by the width of their first layer.
OTHERS: dict[str, dict[int, str]] = {
    "layers.0.blocks.0.attn.relative_position_bias_table": {
        96: "swin_tiny_patch4_window7_224",
        128: "swin_base_patch4_window7_224",
    },
    "downsample_layers.0.0.weight": {96: "convnext_tiny", 128: "convnext_base", 192: "convnext_large"},
    "stages.0.blocks.0.conv_dw.weight": {96: "convnext_tiny", 128: "convnext_base", 192: "convnext_large"},
}


def words(state: Mapping[str, Tensor]) -> str:
    """What the weights are and which `backbone=` has room for them, or "" where nothing is known of them."""
    return _vit(state) or _resnet(state) or _other(state)


def _vit(state: Mapping[str, Tensor]) -> str:
    patches = state.get("patch_embed.proj.weight")
    blocks = {int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.norm1\.", key))}
    if patches is None or not blocks or patches.ndim != 4:
        return ""
    width, depth, patch = patches.shape[0], max(blocks) + 1, patches.shape[-1]
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    scaled = any(".ls1." in key or ".gamma_1" in key for key in state)
    kinds = {
        f"{registers} registers": registers,
        "layer scale": scaled,
        "no class token": "cls_token" not in state,
        "gated MLPs": _gated(state),
        "a norm before the first block": "norm_pre.weight" in state,
        "relative positions": any("relative_position_bias_table" in key for key in state),
        "relative positions, shared by all blocks": "rel_pos_bias.relative_position_bias_table" in state,
    }
    known = ", ".join(("", *(kind for kind, there in kinds.items() if there)))
    told = f"it holds a ViT of width {width}, depth {depth}, patches of {patch} px{known}"
    ours = not any(kinds[kind] for kind in list(kinds)[3:])
    size = VITS.get((width, depth))
    given = [f"backbone.patch_size={patch}", f"backbone.dim={width}", f"backbone.depth={depth}"]
    given += [f"backbone.registers={registers}"] * bool(registers) + ["backbone.layer_scale=1e-5"] * scaled
    given += ["+backbone.class_token=false backbone.readout=mean"] * kinds["no class token"]
    nearest = size if size in ("tiny", "small", "base") else "base"
    given = [f"backbone=vit_{nearest}", *given]  # width and depth too: experiment=cpu makes them smaller
    own = f": {' '.join(given)}" if ours else ""
    theirs = _timms(size, patch, registers, kinds)
    joined = f"{own}, or {theirs}" if own and theirs else own or (f": {theirs}" if theirs else "")
    return told + (joined or "; no backbone of ours or timm's is known to fit")


def _gated(state: Mapping[str, Tensor]) -> bool:
    first, second = (state.get(f"blocks.0.mlp.fc{i}.weight") for i in (1, 2))
    return first is not None and second is not None and first.shape[0] == 2 * second.shape[1]


def _timms(size: str | None, patch: int, registers: int, kinds: Mapping[str, object]) -> str:
    """The words for a network of timm's, if it has one of this size and kind."""
    import timm

    if kinds["relative positions"]:
        names = [f"beit_{size}_patch{patch}_224"]
        shared = kinds["relative positions, shared by all blocks"]
        more = " +backbone.use_rel_pos_bias=false +backbone.use_shared_rel_pos_bias=true" if shared else ""
    elif kinds["a norm before the first block"]:
        names, more = [f"vit_{size}_patch{patch}_clip_224"], ""
    elif kinds["layer scale"] and not kinds["no class token"]:
        names, more = [f"vit_{size}_patch{patch}_{'reg4_' if registers == 4 else ''}dinov2"], ""
    else:
        names = [f"vit_{size}_patch{patch}_224"]
        more = " +backbone.class_token=false +backbone.global_pool=avg" if kinds["no class token"] else ""
        more += f" +backbone.reg_tokens={registers}" if registers else ""
        more += " +backbone.init_values=1e-5" if kinds["layer scale"] else ""
    found = next((name for name in names if timm.is_model(name)), None)
    return f"backbone=timm backbone.name={found}{more}" if found else ""


def _resnet(state: Mapping[str, Tensor]) -> str:
    stem = state.get("conv1.weight")
    layers = [{int(m[1]) for key in state if (m := re.match(rf"layer{i}\.(\d+)\.", key))} for i in range(1, 5)]
    depths = tuple(max(layer) + 1 if layer else 0 for layer in layers)
    narrow, wide = RESNETS.get(depths, ("", ""))  # type: ignore[arg-type, call-overload, unused-ignore]
    if stem is None or stem.ndim != 4 or not (narrow or wide):
        return ""
    name, middle = wide or narrow, state.get("layer1.0.conv2.weight")
    if "layer1.0.conv3.weight" not in state:
        name = narrow
    elif middle is not None and middle.shape[0] == 128:
        grouped = {4: {"resnet50": "resnext50_32x4d"}, 8: {"resnet101": "resnext101_32x8d"}}
        same = {"resnet50": "wide_resnet50_2", "resnet101": "wide_resnet101_2"}
        name = (same if middle.shape[1] == 128 else grouped.get(middle.shape[1], {})).get(name, "")
    if not name:
        return ""
    kind = "imagenet" if stem.shape[-1] == 7 else "cifar"
    fits = (
        f"backbone={name}"
        if name in ("resnet18", "resnet34", "resnet50")
        else f"backbone=resnet50 backbone.name={name}"
    )
    return f"it holds a {name}: {fits} backbone.stem={kind}"


def _other(state: Mapping[str, Tensor]) -> str:
    for key, sizes in OTHERS.items():
        if key in state:
            width = (
                state[key].shape[0]
                if "weight" in key
                else next((value.shape[0] for name, value in state.items() if name == "patch_embed.proj.weight"), 0)
            )
            if width in sizes:
                return f"it looks like timm's {sizes[width]}: backbone=timm backbone.name={sizes[width]}"
    return ""
