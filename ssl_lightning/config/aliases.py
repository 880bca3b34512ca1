"""Where modules and classes have gone: their old dotted names with the new ones.

Cards, config.yaml files, users' yamls and users' imports name classes by where they once stood. Every such name is read
through `resolve`, before it is asked whether it may be named at all: an alias only stands for another name and allows
nothing by itself. Entries are added, never removed; `config/shims.py` makes the same ones importable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PACKAGE = "ssl_lightning"

# Modules and packages that moved as a whole, with everything in them.
MODULES: dict[str, str] = {
    "ssl_lightning.adopted": "ssl_lightning.runs.adopted",
    "ssl_lightning.allowed": "ssl_lightning.config.allowed",
    "ssl_lightning.arguments": "ssl_lightning.cli.arguments",
    "ssl_lightning.bounded": "ssl_lightning.core.bounded",
    "ssl_lightning.build": "ssl_lightning.cli.run",
    "ssl_lightning.callbacks.ema_teacher": "ssl_lightning.parts.ema_teacher",
    "ssl_lightning.card": "ssl_lightning.runs.card",
    "ssl_lightning.checkpoint": "ssl_lightning.runs.checkpoint",
    "ssl_lightning.command": "ssl_lightning.cli.command",
    "ssl_lightning.comparison": "ssl_lightning.runs.comparison",
    "ssl_lightning.compose": "ssl_lightning.cli.compose",
    "ssl_lightning.conditions": "ssl_lightning.cli.conditions",
    "ssl_lightning.config_loader": "ssl_lightning.cli.config_loader",
    "ssl_lightning.crew": "ssl_lightning.core.crew",
    "ssl_lightning.data.augment": "ssl_lightning.modalities.image.augment",
    "ssl_lightning.data.augment_one": "ssl_lightning.modalities.image.augment_one",
    "ssl_lightning.data.counter": "ssl_lightning.core.counter",
    "ssl_lightning.data.datamodule": "ssl_lightning.modalities.image.data",
    "ssl_lightning.data.decode_cache": "ssl_lightning.modalities.image.decode_cache",
    "ssl_lightning.data.depth": "ssl_lightning.modalities.image.depth",
    "ssl_lightning.data.described": "ssl_lightning.modalities.image.described",
    "ssl_lightning.data.draw": "ssl_lightning.modalities.image.draw",
    "ssl_lightning.data.fetch": "ssl_lightning.modalities.image.fetch",
    "ssl_lightning.data.image_data": "ssl_lightning.modalities.image.hooks",
    "ssl_lightning.data.images": "ssl_lightning.modalities.image.images",
    "ssl_lightning.data.jpeg": "ssl_lightning.modalities.image.jpeg",
    "ssl_lightning.data.pixels": "ssl_lightning.modalities.image.pixels",
    "ssl_lightning.data.ranges": "ssl_lightning.modalities.image.ranges",
    "ssl_lightning.data.resize": "ssl_lightning.modalities.image.resize",
    "ssl_lightning.data.sources": "ssl_lightning.modalities.image.sources",
    "ssl_lightning.data.sources.array": "ssl_lightning.modalities.image.sources.array",
    "ssl_lightning.data.sources.cifar": "ssl_lightning.modalities.image.sources.cifar",
    "ssl_lightning.data.sources.folder": "ssl_lightning.modalities.image.sources.folder",
    "ssl_lightning.data.sources.shapes": "ssl_lightning.modalities.image.sources.shapes",
    "ssl_lightning.data.sources.shapes_outlines": "ssl_lightning.modalities.image.sources.shapes_outlines",
    "ssl_lightning.data.sources.shapes_render": "ssl_lightning.modalities.image.sources.shapes_render",
    "ssl_lightning.data.sources.stl10": "ssl_lightning.modalities.image.sources.stl10",
    "ssl_lightning.data.tiff": "ssl_lightning.modalities.image.tiff",
    "ssl_lightning.data.views": "ssl_lightning.modalities.image.views",
    "ssl_lightning.ddp": "ssl_lightning.core.ddp",
    "ssl_lightning.devices": "ssl_lightning.runs.devices",
    "ssl_lightning.dialects": "ssl_lightning.runs.dialects",
    "ssl_lightning.distributed": "ssl_lightning.core.distributed",
    "ssl_lightning.earlier": "ssl_lightning.runs.earlier",
    "ssl_lightning.errors": "ssl_lightning.core.errors",
    "ssl_lightning.extension": "ssl_lightning.runs.extension",
    "ssl_lightning.flows": "ssl_lightning.config.flows",
    "ssl_lightning.foreign": "ssl_lightning.runs.foreign",
    "ssl_lightning.harmless": "ssl_lightning.runs.harmless",
    "ssl_lightning.help": "ssl_lightning.cli.help",
    "ssl_lightning.hub": "ssl_lightning.core.hub",
    "ssl_lightning.inert": "ssl_lightning.runs.inert",
    "ssl_lightning.inherit": "ssl_lightning.cli.inherit",
    "ssl_lightning.instantiate": "ssl_lightning.config.instantiate",
    "ssl_lightning.known": "ssl_lightning.runs.known",
    "ssl_lightning.launch": "ssl_lightning.core.launch",
    "ssl_lightning.ledger": "ssl_lightning.cli.ledger",
    "ssl_lightning.locks": "ssl_lightning.runs.locks",
    "ssl_lightning.lookalike": "ssl_lightning.runs.lookalike",
    "ssl_lightning.losses.center": "ssl_lightning.parts.center",
    "ssl_lightning.losses.forms": "ssl_lightning.core.forms",
    "ssl_lightning.losses.sinkhorn": "ssl_lightning.parts.sinkhorn",
    "ssl_lightning.losses.streamed": "ssl_lightning.parts.streamed",
    "ssl_lightning.member": "ssl_lightning.core.member",
    "ssl_lightning.methods.finetuner": "ssl_lightning.tasks.finetuner",
    "ssl_lightning.methods.teacher": "ssl_lightning.parts.teacher",
    "ssl_lightning.missing": "ssl_lightning.core.missing",
    "ssl_lightning.models.color_bins": "ssl_lightning.parts.color_bins",
    "ssl_lightning.models.kmeans": "ssl_lightning.parts.kmeans",
    "ssl_lightning.models.lab": "ssl_lightning.parts.lab",
    "ssl_lightning.models.masking": "ssl_lightning.parts.masking",
    "ssl_lightning.models.queue": "ssl_lightning.parts.queue",
    "ssl_lightning.models.tiles": "ssl_lightning.parts.tiles",
    "ssl_lightning.moved": "ssl_lightning.cli.moved",
    "ssl_lightning.names": "ssl_lightning.config.names",
    "ssl_lightning.needs": "ssl_lightning.config.needs",
    "ssl_lightning.one_line": "ssl_lightning.core.one_line",
    "ssl_lightning.picks": "ssl_lightning.cli.picks",
    "ssl_lightning.places": "ssl_lightning.runs.places",
    "ssl_lightning.plain_yaml": "ssl_lightning.core.plain_yaml",
    "ssl_lightning.positions": "ssl_lightning.runs.positions",
    "ssl_lightning.ranges": "ssl_lightning.config.ranges",
    "ssl_lightning.ranks": "ssl_lightning.cli.ranks",
    "ssl_lightning.reading": "ssl_lightning.config.reading",
    "ssl_lightning.references": "ssl_lightning.cli.references",
    "ssl_lightning.retarget": "ssl_lightning.cli.retarget",
    "ssl_lightning.run_folder": "ssl_lightning.runs.folder",
    "ssl_lightning.run_parts": "ssl_lightning.cli.run_parts",
    "ssl_lightning.saving": "ssl_lightning.runs.saving",
    "ssl_lightning.secrets": "ssl_lightning.core.secrets",
    "ssl_lightning.sharded": "ssl_lightning.runs.sharded",
    "ssl_lightning.signals": "ssl_lightning.core.signals",
    "ssl_lightning.signatures": "ssl_lightning.config.signatures",
    "ssl_lightning.slips": "ssl_lightning.cli.slips",
    "ssl_lightning.slots": "ssl_lightning.config.slots",
    "ssl_lightning.sweep": "ssl_lightning.cli.sweep",
    "ssl_lightning.table": "ssl_lightning.cli.table",
    "ssl_lightning.torch_files": "ssl_lightning.runs.torch_files",
    "ssl_lightning.trainers": "ssl_lightning.cli.trainers",
    "ssl_lightning.typecheck": "ssl_lightning.config.typecheck",
    "ssl_lightning.typed": "ssl_lightning.cli.typed",
    "ssl_lightning.words": "ssl_lightning.cli.words",
}
# Classes and functions that moved or were renamed by themselves; these win over the module that they stood in.
NAMES: dict[str, str] = {
    "ssl_lightning.data.loader.ArrayFetch": "ssl_lightning.data.loader.BatchFetch",
    "ssl_lightning.data.loader.EvalCrop": "ssl_lightning.modalities.image.fetch.EvalCrop",
    "ssl_lightning.data.loader.eval_fetch": "ssl_lightning.modalities.image.fetch.eval_fetch",
    "ssl_lightning.runs.checkpoint.Checkpoint": "ssl_lightning.runs.checkpoint.Pretrained",
    "ssl_lightning.runs.checkpoint.load_backbone": "ssl_lightning.api.load_backbone",
}


def resolve(dotted: str) -> str:
    """The present name of a module, class or function: "ssl_lightning.models.queue.Queue" -> "ssl_lightning.parts...".

    Names that are in use, and those of other packages, come back as they are. Moves of moves are followed.
    """
    if not dotted.startswith(f"{PACKAGE}."):
        return dotted
    for _ in range(len(MODULES) + len(NAMES) + 1):  # ends even if somebody adds a circle
        found = _once(dotted)
        if found == dotted:
            break
        dotted = found
    return dotted


def _once(dotted: str) -> str:
    """One move, by the longest entry that is this name or stands above it."""
    head, rest = dotted, ""
    while head != PACKAGE and head:
        for table in (NAMES, MODULES):
            if head in table:
                return table[head] + rest
        head, _, word = head.rpartition(".")
        rest = f".{word}{rest}"
    return dotted


def present(node: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy of one config node whose `_target_`, if it is a text, is a present name."""
    target = node.get("_target_")
    return {**node, "_target_": resolve(target)} if isinstance(target, str) else dict(node)


def resolved(value: Any) -> Any:
    """A copy of plain config values in which each `_target_` is a present name."""
    if isinstance(value, Mapping):
        return present({key: resolved(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(map(resolved, value))
    return value


def old_targets(value: Any, prefix: str = "") -> dict[str, str]:
    """The places of former names in plain config values, as dotted keys with the present names."""
    found: dict[str, str] = {}
    if isinstance(value, Mapping):
        for key, item in value.items():
            place = f"{prefix}.{key}" if prefix else str(key)
            if key == "_target_" and isinstance(item, str):
                found |= {place: resolve(item)} if resolve(item) != item else {}
            else:
                found |= old_targets(item, place)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            found |= old_targets(item, f"{prefix}.{i}")
    return found
