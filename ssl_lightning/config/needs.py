"""Which arguments count only beside another one: a jitter's strength means nothing where its probability is 0.

Asked of what is typed alone: a yaml may hold values for the day that the other one is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ssl_lightning.config import signatures


@dataclass(frozen=True)
class Need:
    """`arguments` of one of these `classes` count only where its argument `other` is as `wanted` says."""

    classes: str
    arguments: str
    other: str
    wanted: str

    def holds(self, value: Any, node: Mapping[str, Any]) -> bool:
        return _WANTED[self.wanted](value, node)


# What a value is to be, of itself or beside the other arguments; what is no such value at all is said by other checks.
_WANTED: dict[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "above 0": lambda value, _: value is not None and (not _number(value) or value > 0),
    "2 or more": lambda value, _: not _number(value) or value >= 2,
    "other than null": lambda value, _: value is not None,
    "true": lambda value, _: value is not False,
    "false": lambda value, _: value is not True,
    "sgd or adamw": lambda value, _: value != "lbfgs",
    "other than momentum": lambda value, node: value != node.get("momentum", value),
}
_VIEWS = "View LocalView"
NEEDS = (
    Need(_VIEWS, "brightness contrast saturation hue", "jitter_p", "above 0"),
    Need(_VIEWS, "blur_sigma", "blur_p", "above 0"),
    Need(_VIEWS, "solarize_threshold", "solarize_p", "above 0"),
    Need("DINO IBOT", "warmup_teacher_temperature", "warmup_epochs", "above 0"),
    Need("IBOT", "mask_ratio", "mask_probability", "above 0"),
    Need("IBOT", "spread_weight", "spread", "other than null"),
    Need("IBOT", "spread", "spread_weight", "above 0"),
    Need("CPC", "stride drop_colors", "tile_size", "other than null"),
    Need("SwAV", "queue_epoch", "queue_size", "above 0"),
    Need("MLP", "hidden_dim norm activation", "num_layers", "2 or more"),
    Need("MLP", "last_norm_affine", "last_norm", "true"),
    Need("MLP", "bias", "last_norm", "false"),
    Need("ViT", "uniform_drop_path", "drop_path", "above 0"),
    Need("WarmupCosine", "warmup_start_lr", "warmup_epochs", "above 0"),
    Need("TiCoLoss", "beta", "rho", "above 0"),
    Need("VICRegLoss", "eps", "variance", "above 0"),
    Need("MSNLoss", "prior_power", "weight", "above 0"),
    Need("EMATeacher", "rise", "final_momentum", "other than momentum"),
    Need("ProbeSettings", "lrs epochs batch_size", "optimizer", "sgd or adamw"),
    Need("Trainer", "gradient_clip_algorithm", "gradient_clip_val", "above 0"),
)
VALIDATION: tuple[str, ...] = ("trainer.check_val_every_n_epoch", "trainer.val_check_interval")
VALIDATION += ("trainer.num_sanity_val_steps",)
VALIDATION += ("data.bank_size", "data.query_size", "callbacks.online_knn")
OF_THE_BANK = "ssl_lightning.callbacks.online_knn.OnlineKNN"
OURS = "ssl_lightning.callbacks."


def unmet(place: str, values: Mapping[str, Any], references: Mapping[str, str]) -> str:
    """Why a key counts for nothing in this config, and what to set; "" where it counts.

    `references`: from a key to the one it takes its value from; what others take counts there.
    """
    if place in references.values():
        return ""
    part, _, key = place.rpartition(".")
    node = _at(values, part)
    target = "lightning.Trainer" if part == "trainer" else node.get("_target_")
    for need in _of(target, key):
        value = node[need.other] if need.other in node else _default(str(target), need.other)
        if value is not ... and not need.holds(value, node):
            set_it = f"{part}.{need.other}{'=' if need.wanted in ('true', 'false') else ' '}{need.wanted}"
            return f"{place} is used only with {set_it}; set it, or leave this out"
    if place == "method.stride" and _is(node, "SimMIM") and _is(_at(values, "backbone"), "ViT"):
        return "method.stride is used only with a convolutional backbone; a ViT has backbone.patch_size; leave this out"
    if place == "backbone.image_size" and _is(_at(values, "backbone"), "timm_backbone"):
        return _of_any_size(str(_at(values, "backbone").get("name")))
    return _of_validation(place, values)


def _of_any_size(name: str) -> str:
    """timm builds some networks for one size of image; the others take each as it comes."""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name) else None
    if config is None or config.fixed_input_size:
        return ""
    return f"backbone.image_size is used only for a network of one size, and {name} takes any; set data.image_size"


def _is(node: Mapping[str, Any], name: str) -> bool:
    return str(node.get("_target_")).endswith(f".{name}")


def _of(target: Any, key: str) -> Iterator[Need]:
    if not isinstance(target, str) or not target.startswith(("ssl_lightning.", "lightning.Trainer")):
        return
    name = target.rpartition(".")[2]
    yield from (need for need in NEEDS if name in need.classes.split() and key in need.arguments.split())


def _of_validation(place: str, values: Mapping[str, Any]) -> str:
    """What is read in the validation of a pretraining needs one, and somebody who looks."""
    if not any(place == key or place.startswith(f"{key}.") for key in VALIDATION):
        return ""
    if _at(values, "trainer").get("limit_val_batches") in (0, 0.0):
        return f"{place} is used only if there is validation; set trainer.limit_val_batches, or leave this out"
    targets = [str(node.get("_target_")) for node in _at(values, "callbacks").values() if isinstance(node, Mapping)]
    if place == "data.bank_size" and OF_THE_BANK not in targets and all(t.startswith(OURS) for t in targets):
        return "data.bank_size is used only with callbacks.online_knn; take callbacks=default, or leave this out"
    return ""


def _at(values: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """The part of a config at this place; an empty one where there is none."""
    node: Any = values
    for step in part.split(".") if part else ():
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _default(target: str, argument: str) -> Any:
    signature = signatures.read(target)
    param = signature.params.get(argument) if signature else None
    found = param.default_value() if param else ()
    return found[0] if found else ...


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
