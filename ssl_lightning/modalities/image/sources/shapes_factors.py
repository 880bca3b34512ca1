"""What is known of each image of `shapes`: the factors that it was drawn from, as numbers and classes to be read."""

import torch
from torch import Tensor

from ssl_lightning.modalities.image.sources.shapes_render import scene

BLOCK = 4000  # images whose draws are held at a time


def factors(indices: Tensor, seed: int = 0, split: str = "train") -> dict[str, Tensor]:
    """The factors of the main figure of the images `indices` (N,) of a split; nothing is drawn.

    class (N,) int64; colour (N, 3), red, green and blue in [0, 1]; size (N,), its radius, and position (N, 2), x and y,
    as parts of the image's side; rotation (N,) in radians; texture (N,) int64, its kind.
    """
    parts = [scene(rows, seed, split) for rows in indices.split(BLOCK)]
    names = {
        "class": "label",
        "colour": "figure_colour",
        "size": "radius",
        "position": "centre",
        "rotation": "rotation",
        "texture": "figure_texture",
    }
    return {name: torch.cat([part[key] for part in parts]) for name, key in names.items()}
