"""Keys of older versions: where each has gone, for commands that still type it."""

from __future__ import annotations

from ssl_lightning.core.errors import UserError

# `recipe.*` held what several methods read; each method's own yaml says it now.
RECIPE = {
    "head.out_dim": "method.projector.out_dim (of dino, ibot and dinov2: method.projector.bottleneck_dim)",
    "head": "method.projector",
    "queue_size": "method.queue_size",
    "predictor_dim": "method.predictor.hidden_dim",
    "bottleneck_dim": "method.predictor.hidden_dim",
    "prototypes": "method.prototypes",
    "mask_ratio": "method.mask_ratio",
    "redundancy": "method.loss.redundancy",
    "scaled": "method.loss.scaled",
    "swav": "method",
    "byol.momentum": "method.teacher.momentum",
    "byol.last_norm": "method.projector.last_norm",
    "data2vec": "method.teacher",
    "ijepa": "method.teacher",
    "dino.prototypes": "method.projector.out_dim",
    "dino.learned_scale": "method.projector.learned_scale",
    "dino.momentum": "method.teacher.momentum",
    "dino.frozen_epochs": "method.frozen_epochs",
    "cpc.hidden_dim": "method.context.hidden_dim",
    "cpc": "method",
    "decoder": "method.decoder (of ijepa: method.predictor)",
    "permutations": "method.projector.out_dim",
    "out_dim": "method.projector.out_dim",
    "tile_size": "method.tile_size",
    "mask_size": "method.mask_size",
    "stride": "method.stride",
    "cells": "method.cells",
    "drop_colors": "method.drop_colors",
    "patch_size": "backbone.patch_size",
    "dim": "backbone.dim",
    "depth": "backbone.depth",
    "vit": "backbone",
    "strong_views": "views.global_1.count",
    "jitter_p": "views.global_1.jitter_p",
    "grayscale_p": "views.global_1.grayscale_p",
    "weak_view": "views.global_2",
    **dict.fromkeys(("lars", "sgd", "adam", "adamw"), "optimizer"),
}


def check(key: str) -> None:
    """Raise a UserError for a key `recipe.*`, with the one that says the same now."""
    top, _, rest = key.lstrip("+~").partition(".")
    if top != "recipe":
        return
    found = next((old for old in RECIPE if rest == old or rest.startswith(f"{old}.")), None)
    if found is None:
        raise UserError(f"there is no '{key}': recipe was removed; each value has its own key, see --cfg job")
    new, *note = RECIPE[found].split(" ", 1)
    raise UserError(f"'{key}' is now {new}{rest[len(found) :]}{' ' + note[0] if note else ''}")
