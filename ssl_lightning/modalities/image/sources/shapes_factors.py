"""What is known of each image of `shapes`: the factors that it was drawn from, as numbers and classes to be read."""

import torch
from torch import Tensor

from ssl_lightning.modalities.image.sources.shapes_render import scene

BLOCK = 4000  # images whose draws are held at a time


def factors(indices: Tensor, seed: int = 0, split: str = "train") -> dict[str, Tensor]:
    """The factors of the images `indices` (N,) of a split; nothing is drawn.

    class (N,) int64; colour (N, 3), what the ground's red, green and blue are above or below their mean; size (N,), the
    radius, position (N, 2), x and y, and rotation (N,), radians, of an image's figures on average, lengths as parts of
    its side: they are alike but for their place, so no reader could know which of them is meant; texture (N,) int64,
    the ground's kind.
    """
    parts = [_of(scene(rows, seed, split)) for rows in indices.split(BLOCK)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _of(drawn: dict[str, Tensor]) -> dict[str, Tensor]:
    def mean(name: str) -> Tensor:
        return torch.cat([drawn[name].unsqueeze(1), drawn[f"companion_{name}"]], 1).mean(1)

    ground = drawn["ground_colour"]
    return {
        "class": drawn["label"],
        "colour": ground - ground.mean(1, keepdim=True),
        "size": mean("radius"),
        "position": mean("centre"),
        "rotation": mean("rotation"),
        "texture": drawn["ground_texture"],
    }
