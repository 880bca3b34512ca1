"""A backbone as a folder that timm and the Hugging Face hub read: config.json, model.safetensors and a README.

    net = timm.create_model("local-dir:FOLDER", pretrained=True)

Networks of timm's, torchvision's ResNets with their own stem, and our ViT are such networks. Each is built by timm from
the folder and compared before it is kept.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import per_axis
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.models.vit import ViT
from ssl_lightning.runs.card import TIMM, TIMM_OURS
from ssl_lightning.stages.export_onnx import waves

RESNET = "ssl_lightning.models.resnet.resnet"
POOLS = {"cls": "token", "mean": "avg"}
CLOSE = 1e-5
OTHERS = "stage.formats=[safetensors,onnx] take any network"
NUMBERS = ("knn_top1", "linear_top1", "finetune_top1", "epochs", "steps")


class Classifier(NamedTuple):
    """The last layer: weight (K, D), bias (K,), and the names of its K outputs."""

    weight: Tensor
    bias: Tensor
    names: list[str]


def write(
    backbone: nn.Module,
    card: Mapping[str, Any],
    results: Mapping[str, Any],
    folder: Path,
    classifier: Classifier | None = None,
) -> dict[str, Any]:
    """Write the folder; returns what there is to say of it.

    Raises:
        UserError: a network that timm has none like; the line says which formats take it.
    """
    net = backbone.cpu().float()
    architecture, arguments = _in_timm(net, card["backbone"])
    shape = _shape(net, card)
    config = {
        "architecture": architecture,
        "num_classes": len(classifier.names) if classifier else 0,
        "num_features": int(net.out_dim),  # type: ignore[arg-type]
        **({"label_names": classifier.names} if classifier else {}),
        "model_args": arguments,
        "pretrained_cfg": _fed(card, shape) | ({"num_classes": len(classifier.names)} if classifier else {}),
    }
    folder.mkdir()
    state = {key: value.detach().contiguous().clone() for key, value in net.state_dict().items()}
    if classifier:
        name = _last_layer(architecture, arguments, len(classifier.names))
        state |= {f"{name}.weight": classifier.weight.contiguous(), f"{name}.bias": classifier.bias.contiguous()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    difference = _compared(net, folder, shape, classifier)
    (folder / "README.md").write_text(readme(card, config, results))
    told = {"classes": classifier.names} if classifier else {}
    return {"architecture": architecture, **told, "max_difference": difference, "load": loading_line(folder.name)}


def _last_layer(architecture: str, arguments: Mapping[str, Any], classes: int) -> str:
    """The name of timm's classifier in this network."""
    import timm

    with torch.random.fork_rng(devices=[]):
        net = timm.create_model(architecture, pretrained=False, num_classes=classes, **arguments)
    name = getattr(net, "default_cfg", {}).get("classifier")
    layer = dict(net.named_modules()).get(name) if isinstance(name, str) else None
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        raise UserError(f"hf: timm's {architecture} has no one linear layer as its classifier; {OTHERS}")
    return str(name)


def loading_line(folder: str) -> str:
    return f'timm.create_model("local-dir:{folder}", pretrained=True)'


def _in_timm(net: nn.Module, node: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """timm's architecture for a network, and its arguments."""
    target, name, channels = node.get("_target_"), str(node.get("name")), int(node.get("in_channels") or 3)
    extra = {} if channels == 3 else {"in_chans": channels}
    if target == TIMM:
        given = {key: value for key, value in node.items() if key not in TIMM_OURS}
        if hasattr(net, "patch_embed") and node.get("image_size") and _takes_one_size(name):
            given["img_size"] = node["image_size"]
        return name.split(".")[0], extra | given
    if target == RESNET:
        if node.get("stem", "imagenet") != "imagenet":
            raise UserError(f"hf: timm has no {name} with the stem for small images (stem=cifar); {OTHERS}")
        return name, extra
    if isinstance(net, ViT):
        if net.readout not in POOLS:
            raise UserError(f"hf: timm has no ViT with readout={net.readout}; {OTHERS}")
        return "vit_base_patch16_224", extra | _of_vit(net)
    raise UserError(f"hf needs a network that timm has, and it has no {type(net).__name__}; {OTHERS}")


def _takes_one_size(name: str) -> bool:
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return config is not None and bool(config.fixed_input_size)


def _of_vit(net: ViT) -> dict[str, Any]:
    blocks, scale = net.blocks, getattr(net.blocks[0].ls1, "gamma", None)
    return {
        "img_size": list(net.patch_embed.img_size),
        "patch_size": list(per_axis(net.patch_size, 2)),
        "in_chans": int(net.patch_embed.proj.in_channels),
        "embed_dim": int(net.embed_dim),
        "depth": len(blocks),
        "num_heads": int(blocks[0].attn.num_heads),
        "global_pool": POOLS[net.readout],
        "fc_norm": False,  # the norm comes before the mean
        "class_token": bool(net.has_class_token),
        "reg_tokens": int(net.num_prefix_tokens) - int(net.has_class_token),
        "dynamic_img_size": True,
        **({} if scale is None else {"init_values": 1.0}),  # of which the weights have their own
    }


def _shape(net: nn.Module, card: Mapping[str, Any]) -> tuple[int, ...]:
    from ssl_lightning.modalities.feeding import transform_of

    return tuple(transform_of(card).shape)


def _fed(card: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """How images become inputs, in timm's words; of spectrograms their size alone."""
    fed: dict[str, Any] = {"input_size": list(shape), "num_classes": 0}
    if card.get("image_size") and not card.get("modality"):
        size = int(card["image_size"])
        fed |= {"interpolation": "bilinear", "crop_mode": "center"}
        fed |= {key: list(card[key]) for key in ("mean", "std") if card.get(key)}
        fed |= {"crop_pct": size / int(card.get("eval_resize") or size)}
    return fed


def _compared(net: nn.Module, folder: Path, shape: tuple[int, ...], classifier: Classifier | None) -> float:
    """The largest difference of an output between timm's network, from the folder alone, and ours."""
    import timm

    x = waves(2, shape)
    try:
        with torch.random.fork_rng(devices=[]):
            theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with evaluating(net), torch.no_grad():
            ours = net(x)
            ours = ours @ classifier.weight.T + classifier.bias if classifier else ours
            difference, largest = float((theirs(x) - ours).abs().max()), float(ours.abs().max())
    except Exception as error:  # what does not fit fails in timm in a dozen ways
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"hf: timm does not read this network ({why}); {OTHERS}") from error
    if not difference <= CLOSE * max(1.0, largest):
        what = "logits" if classifier else "features"
        raise UserError(f"hf: timm's network gives {what} that differ by up to {difference:.2g}; {OTHERS}")
    return difference


# ---- the model card -------------------------------------------------------------------------------------------------


def readme(card: Mapping[str, Any], config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """A README in the form of the Hugging Face hub: what it is, how to use it, what is known of it, and what is not."""
    method, data = (_word(card.get(key)) for key in ("method", "data"))
    size = " x ".join(map(str, config["pretrained_cfg"]["input_size"]))
    found: list[tuple[str, Any]] = [(key, results[key]) for key in NUMBERS if _is_number(results.get(key))]
    baselines = results.get("baselines")
    for name, values in baselines.items() if isinstance(baselines, dict) else ():
        for key, value in values.items() if isinstance(values, dict) else ():
            if _is_number(value) and key in NUMBERS:
                found.append((f"{name}: {key}", value))
    rows = "".join(f"| {_word(key)} | {_shown(key, value)} |\n" for key, value in found)
    table = f"| | |\n|---|---|\n{rows}" if found else "No results were found beside the weights.\n"
    classes = config.get("label_names") or []
    tag, output = ("image-classification", "logits") if classes else ("image-feature-extraction", "features")
    title = (
        f"pretrained with {method}, trained on the labels of {data}"
        if classes
        else f"pretrained with {method} on {data}"
    )
    what = (
        f"Logits of {len(classes)} classes or labels, named in `config.json`, of inputs of {size}, by ssl_lightning."
        if classes
        else f"Features ({config['num_features']} numbers) of inputs of {size}, learned without labels with\n"
        "ssl_lightning. There is no classifier."
    )
    return f"""---
library_name: timm
tags:
- {tag}
- self-supervised
---
# {config["architecture"]}, {title}

{what}

```python
import timm

net = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # FOLDER: where this file is
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
{output} = net(transform(image).unsqueeze(0))  # (1, {len(classes) or config["num_features"]})
```

## How it was made

- Method: {method}
- Data: {data}
- Normalisation: mean {card.get("mean")}, std {card.get("std")}

## Results

Accuracies are fractions, on the evaluation split of the training's own data, of the last epoch.

{table}
## Licence

The licences of the data, and of weights that the training began with, are unknown to the program that wrote this file.
Add `license:` above once you know them.
"""


def _word(value: Any) -> str:
    """A name from a card or a file, as text alone."""
    text = html.escape(str(value or "unknown"))[:100]
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#|!" else c for c in text if c.isprintable())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(key: str, value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"
