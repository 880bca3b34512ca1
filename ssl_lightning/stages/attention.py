"""stage=attention: how well the class token's attention covers the objects of images with masks, without training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.core import progress
from ssl_lightning.core.distributed import gather_rows
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import attends
from ssl_lightning.core.task import MASKS
from ssl_lightning.data.base import DataModule
from ssl_lightning.evaluation.attention import best_overlap
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.stages.common import Judged, MakeTrainer, Stopwatch, device_of, report, same_items
from ssl_lightning.stages.opening import tell_backbone, tell_items


def run(judged: Judged, data: DataModule, trainer: MakeTrainer, mass: float = 0.6) -> dict[str, Any]:
    """The Jaccard index of objects and thresholded attention, of the head that fits each test image best.

    The mean over images, beside that of random weights: the best of several heads is no small number by chance.

    Args:
        mass: share of a head's attention that its mask holds.
    """
    watch, device = Stopwatch(), device_of(trainer)
    same_items(judged, data)
    if not attends(judged.backbone):
        raise UserError("stage=attention needs a network with a class token and plain attention; choose a ViT's run")
    if MASKS not in data.annotated:
        raise UserError(f"stage=attention needs masks, and these {data.noun}s have none; choose data=voc, coco, "
                        "shapes, or data=folder with data.masks=FOLDER")  # fmt: skip
    data.read_labels(MASKS)
    tell_backbone(judged.backbone, judged.method)
    tell_items(data, device)
    mine, random = (overlaps(network, data, device, mass) for network in (judged.backbone, judged.random))
    if not len(mine):
        raise UserError(f"no test {data.noun} has an object in its mask; check the masks")
    values = [float(found.mean()) for found in (mine, random)]
    return report(
        judged, watch,
        attention_jaccard=values[0],
        metric={"name": "jaccard", "higher_is_better": True},
        baselines={"random_init": {"attention_jaccard": values[1]}},
        verdict=in_words(mine, random),
        protocol={"attention": f"last block, class token, the places that hold {mass:g} of a head's mass, Jaccard "
                  f"index with all objects, the best head of each image, mean over {len(mine)} test {data.noun}s"},
    )  # fmt: skip


def overlaps(network: nn.Module, data: DataModule, device: torch.device, mass: float) -> Tensor:
    """(N,) of the test images that have an object, each once, on the CPU, the same on every rank."""
    network, found = network.to(device), [torch.zeros(0, 2, dtype=torch.float64, device=device)]
    with progress.phase("attention"), evaluating(network), torch.no_grad():
        for batch in progress.steps(data.eval_loader("test")):
            attention = network.attention(batch.views[0].to(device)).float()  # type: ignore[operator]
            values = best_overlap(attention, batch.labels.to(device), mass)
            found.append(torch.stack([batch.indices.to(device).double(), values], 1))
    rows = gather_rows(torch.cat(found)).cpu()
    rows = rows[rows[:, 0].argsort(stable=True)]
    again = rows[:, 0].diff(prepend=rows.new_full((1,), -1)) == 0  # in the place of a file that cannot be read
    return rows[~rows[:, 1].isnan() & ~again, 1]


def in_words(mine: Tensor, random: Tensor) -> str:
    """Whether the trained network's heads cover the objects better than random ones do, image by image."""
    gain = mine - random
    noise = 2 * float(gain.std()) / len(gain) ** 0.5 if len(gain) > 1 else float("inf")
    told = f"{100 * float(mine.mean()):.1f} % against {100 * float(random.mean()):.1f} % of random weights"
    if float(gain.mean()) > noise:
        return f"The attention covers the objects better than by chance: {told}."
    if float(gain.mean()) < -noise:
        return f"The attention covers the objects worse than that of random weights: {told}."
    return f"The attention covers the objects no better than that of random weights: {told}."
