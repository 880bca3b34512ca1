"""Checkpoints laid out as others write them, tiny: names and nesting are theirs, the numbers those of a given network.

Each layout is a function of the network's own state (in timm's or torchvision's names), and gives the file's content.
"""

import argparse
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

State = Mapping[str, Tensor]
Layout = Callable[[State], Any]


def under(prefix: str, state: State) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def other(state: State) -> dict[str, Tensor]:
    """Another network of the same build: what must not be taken."""
    return {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


def head(prefix: str, *names: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": torch.ones(2, 2) for name in names}


def optimizer(state: State) -> dict[str, Any]:
    return {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def settings(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(lr=np.float64(0.1), epochs=np.int64(3), **values)


MLP = ("mlp.0.weight", "mlp.0.bias", "last_layer.weight_g", "last_layer.weight_v")
DECODER = (
    "decoder_embed.weight",
    "decoder_pos_embed",
    "decoder_blocks.0.norm1.weight",
    "decoder_pred.bias",
    "mask_token",
)


def dino(state: State) -> Any:
    student = {**under("module.backbone.", other(state)), **head("module.head.", *MLP)}
    teacher = {**under("backbone.", state), **head("head.", *MLP)}
    rest = {"optimizer": optimizer(state), "fp16_scaler": None, "dino_loss": {"center": torch.ones(1, 2)}, "epoch": 3}
    return {"student": student, "teacher": teacher, "args": settings(arch="vit_small"), **rest}


def ibot(state: State) -> Any:
    student = {**under("module.backbone.", other(state)), **head("module.head.", *MLP, "mlp2.0.weight")}
    student["module.backbone.masked_embed"] = torch.ones(1, 16)
    teacher = {**under("module.backbone.", state), **head("module.head.", *MLP)}
    teacher["module.backbone.masked_embed"] = torch.ones(1, 16)
    loss = {"center": torch.ones(1, 2), "center2": torch.ones(1, 1, 2)}
    return {
        "student": student,
        "teacher": teacher,
        "ibot_loss": loss,
        "args": settings(),
        "optimizer": optimizer(state),
    }


def ijepa(state: State) -> Any:
    parts = {"encoder": under("module.", other(state)), "target_encoder": under("module.", state)}
    parts |= {"predictor": head("module.", "predictor_embed.weight", "mask_token"), "opt": optimizer(state)}
    return parts | {"scaler": {"scale": 1.0}, "epoch": 3, "loss": 0.5, "batch_size": 8, "world_size": 1, "lr": 0.1}


def msn(state: State) -> Any:
    def net(part: State) -> dict[str, Tensor]:
        return {**under("module.", part), **head("module.fc.", "fc1.weight", "bn1.running_mean", "fc3.bias")}

    extra = {"prototypes": torch.ones(4, 2), "opt": optimizer(state), "scaler": {"scale": 1.0}, "epoch": 3}
    return {"target_encoder": net(state), "encoder": net(other(state)), **extra}


def mae(state: State) -> Any:
    model = {**state, **head("", *DECODER)}
    return {"model": model, "optimizer": optimizer(state), "epoch": 3, "scaler": {"scale": 1.0}, "args": settings()}


def moco_v3(state: State) -> Any:
    parts = {**under("module.base_encoder.", state), **head("module.base_encoder.head.", "0.weight", "1.running_mean")}
    parts |= {**under("module.momentum_encoder.", other(state)), **head("module.momentum_encoder.head.", "0.weight")}
    parts |= head("module.predictor.", "0.weight")
    return {"epoch": 3, "arch": "vit_small", "state_dict": parts, "optimizer": optimizer(state), "scaler": {}}


def dinov2_chunks(state: State) -> Any:
    """As its training writes it: blocks in chunks, a mask token, two heads, student and teacher in one mapping."""
    chunked = {re.sub(r"^blocks\.(\d+)\.", r"blocks.0.\1.", key): value for key, value in state.items()}
    chunked["mask_token"] = torch.ones(1, 16)
    heads = {**head("dino_head.", *MLP), **head("ibot_head.", *MLP)}
    return {
        "model": {
            **under("teacher.backbone.", chunked),
            **under("teacher.", heads),
            **under("student.backbone.", other(chunked)),
        },
        "iteration": 3,
    }


def dinov2_teacher(state: State) -> Any:
    plain = {**under("backbone.", state), "backbone.mask_token": torch.ones(1, 16), **head("dino_head.", *MLP)}
    return {"teacher": plain}


def lightly_dino(state: State) -> Any:
    parts = {**under("student_backbone.vit.", other(state)), **under("teacher_backbone.vit.", state)}
    parts |= {**head("student_head.layers.", "0.weight"), **head("teacher_head.layers.", "0.weight")}
    return lightning(parts | {"criterion.center": torch.ones(1, 1, 2)})


def lightly_train(state: State) -> Any:
    path = "embedding_model.wrapped_model._model."
    parts = {**under(f"student_{path}", other(state)), **under(f"teacher_{path}", state)}
    return lightning(parts | head("student_projection_head.layers.", "0.weight"))


def lightning(state: State, **hparams: Any) -> dict[str, Any]:
    """A checkpoint of Lightning's that is no run of ours."""
    loops = {"fit_loop": {"state_dict": {}}}
    rest = {"callbacks": {"ModelCheckpoint": {"best": torch.ones(1)}}, "optimizer_states": [optimizer(state)]}
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": dict(state),
        "loops": loops,
        **rest,
        "hyper_parameters": hparams,
    }


def solo(state: State) -> Any:
    parts = {**under("backbone.", state), **under("momentum_backbone.", other(state)), **head("projector.", "0.weight")}
    return lightning(parts | head("classifier.", "weight"), cfg=settings())


def stable(state: State) -> Any:
    parts = {
        **under("backbone.", state),
        **head("projector.", "0.weight"),
        **head("callbacks_modules.", "probe.weight"),
    }
    return lightning(parts | {"callbacks_metrics.probe.correct": torch.ones(1)})


def compiled(state: State) -> Any:
    parts = {re.sub(r"^(blocks\.\d+)\.", r"\1._orig_mod.", key): value for key, value in state.items()}
    return {"model": {**under("module._orig_mod.backbone.", parts), **head("module._orig_mod.head.", "weight")}}


def fsdp(state: State) -> Any:
    parts = {re.sub(r"^(blocks\.\d+)\.", r"\1._fsdp_wrapped_module.", key): value for key, value in state.items()}
    return {"state_dict": under("_fsdp_wrapped_module.model.net.", parts)}


def transformers(state: State) -> Any:
    """ViTModel's names: queries, keys and values apart."""
    found: dict[str, Tensor] = {"pooler.dense.weight": torch.ones(2, 2)}
    for key, value in state.items():
        match = re.fullmatch(r"blocks\.(\d+)\.(.*)", key)
        if match is None:
            top = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}
            name = top.get(key, key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection"))
            found[re.sub(r"^norm\.", "layernorm.", name)] = value
            continue
        block, rest = f"encoder.layer.{match[1]}.", match[2]
        if rest.startswith("attn.qkv"):
            for name, part in zip(("query", "key", "value"), value.chunk(3)):
                found[f"{block}attention.attention.{name}.{rest.rpartition('.')[2]}"] = part
            continue
        for ours, theirs in {
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
        }.items():
            if rest.startswith(ours):
                found[block + rest.replace(ours, theirs)] = value
    return found


def dinov2_transformers(state: State) -> Any:
    """Dinov2WithRegistersModel's names."""
    found = {}
    for key, value in transformers(state).items():
        key = key.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        key = key.replace("intermediate.dense", "mlp.fc1").replace("attention.output.dense", "ATTN")
        key = key.replace("output.dense", "mlp.fc2").replace("ATTN", "attention.output.dense")
        found[key.replace("register_tokens", "embeddings.register_tokens")] = value
    for key, value in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.ls(\d)\.gamma", key):
            found[f"encoder.layer.{match[1]}.layer_scale{match[2]}.lambda1"] = value
    return {**found, "embeddings.mask_token": torch.ones(1, 16)}


def mmpretrain(state: State) -> Any:
    found = {}
    for key, value in state.items():
        key = key.replace("patch_embed.proj.", "patch_embed.projection.").replace("blocks.", "layers.")
        key = key.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        found[re.sub(r"^norm\.", "ln1.", re.sub(r"\.norm(\d)\.", r".ln\1.", key))] = value
    parts = {**under("backbone.", found), **head("neck.", "fc.weight"), **head("head.", "fc.weight")}
    return {"meta": {"epoch": 3}, "state_dict": OrderedDict(parts | {"data_preprocessor.mean": torch.ones(3)})}


def split_bias(state: State) -> Any:
    """BEiT's kin: queries and values have a bias, keys none (here the reference's key bias is 0)."""
    found = {}
    for key, value in state.items():
        if key.endswith("attn.qkv.bias"):
            found[key.replace("qkv.bias", "q_bias")], _, found[key.replace("qkv.bias", "v_bias")] = value.chunk(3)
        else:
            found[key] = value
    return {
        "model": {
            **under("encoder.", found),
            "encoder.mask_token": torch.ones(1, 1, 16),
            **head("decoder.", "0.weight"),
        }
    }


VITS: dict[str, Layout] = {
    "dino": dino,
    "dino, the backbone alone": dict,
    "ibot": ibot,
    "msn": msn,
    "mae": mae,
    "moco_v3": moco_v3,
    "lightly_dino": lightly_dino,
    "lightly_train": lightly_train,
    "solo": solo,
    "stable_pretraining": stable,
    "torch.compile and DDP": compiled,
    "FSDP": fsdp,
    "transformers": transformers,
    "mmpretrain": mmpretrain,
    "vissl": lambda state: {
        "classy_state_dict": {"base_model": {"model": {"trunk": dict(state), "heads": head("", "0.clf.weight")}}}
    },
    "timm in open_clip": lambda state: {
        **under("visual.trunk.", state),
        **head("transformer.resblocks.0.", "ln_1.weight"),
        "logit_scale": torch.ones(()),
    },
    "data2vec": lambda state: {
        "model": {**state, **head("", "mask_token", "lm_head.weight")},
        "model_ema": other(state),
        "args": settings(),
    },
    "momentum encoder": lambda state: {"encoder": dict(state), "momentum_encoder": other(state)},
    "a whole training": lambda state: lightning(under("model.", state) | head("criterion.", "weight")),
}


def moco(state: State) -> Any:
    parts = {**under("module.encoder_q.", state), **head("module.encoder_q.fc.", "0.weight", "2.bias")}
    parts |= {**under("module.encoder_k.", other(state)), **head("module.encoder_k.fc.", "0.weight")}
    parts |= {"module.queue": torch.ones(2, 8), "module.queue_ptr": torch.ones(1).long()}
    return {"epoch": 3, "arch": "resnet50", "state_dict": parts, "optimizer": optimizer(state)}


def lightly_row(state: State) -> Any:
    """`nn.Sequential(*list(resnet.children())[:-1])`, momentum and heads beside it."""
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    row = {f"{names.index(key.split('.')[0])}.{key.partition('.')[2]}": value for key, value in state.items()}
    parts = {**under("backbone.", row), **under("backbone_momentum.", other(row))}
    return lightning(parts | head("projection_head.layers.", "0.weight", "1.running_var"))


def small_row(state: State) -> Any:
    """lightly's ResNet for CIFAR in a row: no ReLU, no pooling, `shortcut` for `downsample`."""
    names = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]
    row = {f"{names.index(key.split('.')[0])}.{key.partition('.')[2]}": value for key, value in state.items()}
    row = {key.replace("downsample", "shortcut"): value for key, value in row.items()}
    return {"state_dict": {**under("backbone.", row), **head("projection_head.", "0.weight")}}


RESNETS: dict[str, Layout] = {
    "moco": moco,
    "swav": lambda state: {
        **under("module.", state),
        **head("module.", "projection_head.0.weight", "prototypes.weight"),
    },
    "deepcluster_v2": lambda state: {
        "state_dict": {
            **under("module.", state),
            **head("module.", "projection_head.0.weight", "prototypes.prototypes0.weight"),
        }
    },
    "byol": lambda state: {
        **under("net.", state),
        **under("online_encoder.net.", state),
        **head("online_encoder.projector.", "0.weight"),
        **under("target_encoder.net.", other(state)),
        **head("online_predictor.", "0.weight"),
    },
    "simsiam": lambda state: {
        "epoch": 3,
        "state_dict": {
            **under("module.encoder.", state),
            **head("module.encoder.fc.", "0.weight", "6.bias"),
            **head("module.predictor.", "0.weight"),
        },
    },
    "barlow_twins": lambda state: {
        "epoch": 3,
        "model": {
            **under("module.backbone.", state),
            **head("module.projector.", "0.weight"),
            **head("module.bn.", "running_mean"),
        },
    },
    "vicreg": lambda state: {**state, "fc.weight": torch.ones(2, 2)},
    "vissl": lambda state: {
        "classy_state_dict": {"base_model": {"model": {"trunk": under("_feature_blocks.", state), "heads": {}}}}
    },
    "mmselfsup byol": lambda state: {
        "meta": {},
        "state_dict": {
            **under("backbone.", state),
            **under("target_net.module.0.", other(state)),
            **head("neck.", "fc0.weight"),
        },
    },
    "lightly": lightly_row,
    "solo": solo,
    "numpy numbers": lambda state: {
        "model": {key: np.asarray(value) for key, value in state.items()},
        "__author__": "MoCo",
    },
}
